/* The devices of a guest: the vhost-user protocol (QEMU's docs/interop/vhost-user.rst), as far as a User-Mode Linux
 * kernel with time travel speaks it: every kick and every interrupt is a message that the other side acknowledges, so
 * none is ever under way while time goes on.
 */
#include "lab.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum request {
	GET_FEATURES = 1, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE, SET_VRING_NUM = 8, SET_VRING_ADDR,
	SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR, GET_PROTOCOL_FEATURES,
	SET_PROTOCOL_FEATURES, SET_VRING_ENABLE = 18, SET_BACKEND_REQ_FD = 21, GET_CONFIG = 24, SET_CONFIG = 25,
	VRING_KICK = 35
};
enum backend_request { VRING_CALL = 4 };

#define HEADER 12
#define VERSION 1u
#define REPLY 4u
#define NEED_REPLY 8u
#define FEATURE(bit) ((uint64_t)1 << (bit))
#define VERSION_1 FEATURE(32)           /* virtio 1.0 */
#define PROTOCOL_FEATURES FEATURE(30)
#define NET_MAC FEATURE(5)
#define REPLY_ACK FEATURE(3)            /* protocol features */
#define BACKEND_REQ FEATURE(5)
#define CONFIG FEATURE(9)
#define INBAND FEATURE(14)
#define PROTOCOL (REPLY_ACK | BACKEND_REQ | CONFIG | INBAND)
#define CONFIG_MAX 256
#define ANSWER_WAIT_REAL_MS 20          /* then look whether the guest wants something else first */

struct header {
	uint32_t request, flags, size;
};

struct memory_table {
	uint32_t count, padding;
	struct { uint64_t guest, size, user, offset; } regions[MAX_REGIONS];
};

struct ring_state { uint32_t ring, value; };
struct ring_address { uint32_t ring, flags; uint64_t descriptors, used, available, log; };
struct config { uint32_t offset, size, flags; uint8_t bytes[CONFIG_MAX]; };

void device_init(struct device *device, enum device_kind kind, struct node *node, int number)
{
	char name[MAX_NAME + 16];

	device->kind = kind;
	device->node = node;
	device->number = number;
	device->id = ++lab.device_count;
	device->listener.fd = device->connection.fd = device->calls = -1;
	device->in_up = device->out_up = true;
	if (kind == NIC)
		snprintf(name, sizeof name, "%s.%d", node->name, number);
	else
		snprintf(name, sizeof name, "%s.serial", node->name);
	watch(&device->listener, FROM_DEVICE_LISTENER, listen_at(name), device);
}

static void drop_fds(struct device *device)
{
	for (int i = 0; i < device->in.fd_count; i++)
		close(device->in.fds[i]);
	device->in.fd_count = 0;
}

void device_close(struct device *device)
{
	unwatch(&device->connection);
	if (device->calls >= 0)
		close(device->calls);
	device->calls = -1;
	drop_fds(device);
	device->in.got = 0;
	memory_unmap(&device->memory);
	memset(device->rings, 0, sizeof device->rings);
	device->input_size = 0;
	device->protocol = 0;
	device->sending_until = device->receiving_until = 0;
	device->kept = 0;
}

static bool hung_up(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* A kernel connects to a device. A second connection beside a living one is turned away. */
void device_connect(struct device *device)
{
	int fd = accept4(device->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (device->connection.fd >= 0 && !hung_up(device->connection.fd)) {
		close(fd);
		return;
	}
	device_close(device);
	watch(&device->connection, FROM_DEVICE, fd, device);
}

/* --- answers */

static void answer(struct device *device, uint32_t request, const void *payload, uint32_t size)
{
	uint8_t bytes[HEADER + sizeof(struct config)];
	struct header header = { request, VERSION | REPLY, size };
	ssize_t sent;

	memcpy(bytes, &header, HEADER);
	memcpy(bytes + HEADER, payload, size);
	sent = send(device->connection.fd, bytes, HEADER + size, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
		return;         /* the kernel ended; its calendar connection tells */
	if (sent != (ssize_t)(HEADER + size))
		node_broken(device->node, "it does not read the answers to its devices");
}

void device_acknowledge(struct device *device, uint32_t request, uint64_t value)
{
	if (device->connection.fd >= 0)
		answer(device, request, &value, sizeof value);
}

/* --- requests; each gives false for garbage */

static bool set_memory(struct device *device, const uint8_t *payload, uint32_t size)
{
	struct memory_table table = { 0 };
	struct region regions[MAX_REGIONS] = { 0 };
	uint64_t offsets[MAX_REGIONS];

	memcpy(&table, payload, size < sizeof table ? size : sizeof table);
	/* a guest may send room for more regions than it has */
	if (size < 8 || !table.count || table.count > MAX_REGIONS || size < 8 + 32 * table.count
	    || (int)table.count != device->in.fd_count)
		return false;
	for (uint32_t i = 0; i < table.count; i++) {
		regions[i].guest = table.regions[i].guest;
		regions[i].user = table.regions[i].user;
		regions[i].size = table.regions[i].size;
		offsets[i] = table.regions[i].offset;
	}
	return memory_map(&device->memory, regions, offsets, device->in.fds, (int)table.count);
}

static bool set_ring(struct device *device, uint32_t request, const uint8_t *payload, uint32_t size)
{
	struct ring_state state;
	struct ring *ring;

	if (size != sizeof state)
		return false;
	memcpy(&state, payload, sizeof state);
	if (state.ring >= MAX_QUEUES)
		return false;
	ring = &device->rings[state.ring];
	switch (request) {
	case SET_VRING_NUM:
		if (!state.value || state.value > MAX_RING || state.value & (state.value - 1))
			return false;
		ring->size = state.value;
		return true;
	case SET_VRING_BASE:
		if (state.value > UINT16_MAX)
			return false;
		ring->next = (uint16_t)state.value;
		return true;
	default:                /* SET_VRING_ENABLE */
		if (state.value > 1 || (state.value && (device->calls < 0 || (device->protocol & PROTOCOL) != PROTOCOL)))
			return false;
		ring->enabled = state.value;
		return true;
	}
}

static bool set_ring_address(struct device *device, const uint8_t *payload, uint32_t size)
{
	struct ring_address address;
	struct ring *ring;

	if (size != sizeof address)
		return false;
	memcpy(&address, payload, sizeof address);
	if (address.ring >= MAX_QUEUES)
		return false;
	ring = &device->rings[address.ring];
	ring->descriptors = address.descriptors;
	ring->available = address.available;
	ring->used = address.used;
	ring->known = true;
	return true;
}

/* The socket on which the guest takes interrupts. */
static bool set_calls(struct device *device)
{
	struct timeval wait = { .tv_usec = ANSWER_WAIT_REAL_MS * 1000 };
	int domain = 0, type = 0, fd;
	socklen_t length = sizeof domain, length_of_type = sizeof type;

	if (device->in.fd_count != 1)
		return false;
	fd = device->in.fds[0];
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) || domain != AF_UNIX
	    || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length_of_type) || type != SOCK_STREAM
	    || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait))
		return false;
	if (device->calls >= 0)
		close(device->calls);
	device->calls = fd;
	device->in.fd_count = 0;        /* ours now */
	return true;
}

static bool get_config(struct device *device, const uint8_t *payload, uint32_t size)
{
	struct config config = { 0 };

	memcpy(&config, payload, size < HEADER ? size : HEADER);
	if (size < HEADER || config.size > CONFIG_MAX || config.offset > CONFIG_MAX - config.size
	    || size != HEADER + config.size)
		return false;
	if (device->kind == NIC)
		for (uint32_t i = 0; i < config.size && config.offset + i < 6; i++)
			config.bytes[i] = device->mac[config.offset + i];
	answer(device, GET_CONFIG, &config, size);
	return true;
}

static bool kick(struct device *device, const uint8_t *payload, uint32_t size, bool acknowledge)
{
	struct ring_state state;

	if (size != sizeof state)
		return false;
	memcpy(&state, payload, sizeof state);
	if (state.ring >= MAX_QUEUES || device->node->state != RUNNING)
		return false;
	if (device->kind == SERIAL) {
		if (serial_kicked(device, state.ring, acknowledge))
			acknowledge = false;
	} else if (state.ring == 1) {
		nic_kicked(device);
	}
	if (acknowledge)
		device_acknowledge(device, VRING_KICK, 0);
	return true;
}

static bool handle(struct device *device, const struct header *header, const uint8_t *payload)
{
	bool good = true, acknowledge = header->flags & NEED_REPLY;
	uint64_t number = 0;

	if (header->size == sizeof number)
		memcpy(&number, payload, sizeof number);
	switch (header->request) {
	case GET_FEATURES:
		device_acknowledge(device, GET_FEATURES, VERSION_1 | PROTOCOL_FEATURES | (device->kind == NIC ? NET_MAC : 0));
		return true;
	case GET_PROTOCOL_FEATURES:
		device_acknowledge(device, GET_PROTOCOL_FEATURES, PROTOCOL);
		return true;
	case GET_CONFIG:
		return get_config(device, payload, header->size);
	case VRING_KICK:
		return kick(device, payload, header->size, acknowledge);
	case SET_FEATURES:
		good = header->size == 8 && !(number & ~(VERSION_1 | PROTOCOL_FEATURES | NET_MAC));
		break;
	case SET_PROTOCOL_FEATURES:
		good = header->size == 8 && !(number & ~PROTOCOL);
		device->protocol = number;
		break;
	case SET_OWNER: case RESET_OWNER: case SET_VRING_KICK: case SET_VRING_CALL: case SET_VRING_ERR: case SET_CONFIG:
		break;          /* nothing to do: kicks and calls are messages */
	case SET_MEM_TABLE:
		good = set_memory(device, payload, header->size);
		break;
	case SET_VRING_NUM: case SET_VRING_BASE: case SET_VRING_ENABLE:
		good = set_ring(device, header->request, payload, header->size);
		break;
	case SET_VRING_ADDR:
		good = set_ring_address(device, payload, header->size);
		break;
	case SET_BACKEND_REQ_FD:
		good = set_calls(device);
		break;
	default:
		good = false;
	}
	if (good && acknowledge)
		device_acknowledge(device, header->request, 0);
	return good;
}

/* --- reading */

static void take_fds(struct device *device, struct msghdr *parts)
{
	for (struct cmsghdr *each = CMSG_FIRSTHDR(parts); each; each = CMSG_NXTHDR(parts, each)) {
		size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(each) + i * sizeof fd, sizeof fd);
			if (device->in.fd_count < MAX_REGIONS)
				device->in.fds[device->in.fd_count++] = fd;
			else
				close(fd);
		}
	}
}

/* Read on to `wanted` bytes of the message: 1 there, 0 not yet, -1 the guest hung up. */
static int read_to(struct device *device, size_t wanted)
{
	while (device->in.got < wanted) {
		char control[CMSG_SPACE(sizeof(int) * MAX_REGIONS)];
		struct iovec part = { device->in.bytes + device->in.got, wanted - device->in.got };
		struct msghdr parts = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
					.msg_controllen = sizeof control };
		ssize_t got = recvmsg(device->connection.fd, &parts, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return 0;
		if (got <= 0)
			return -1;
		take_fds(device, &parts);
		device->in.got += (size_t)got;
	}
	return 1;
}

/* Handle one message, as far as it is there. */
void device_readable(struct device *device)
{
	struct header header;
	struct node *node = device->node;
	int there = read_to(device, HEADER);

	if (there == 1) {
		memcpy(&header, device->in.bytes, HEADER);
		if (header.size > sizeof device->in.bytes - HEADER || (header.flags & 3) != VERSION) {
			node_broken(node, "a message to its devices has %u bytes and flags %x", header.size, header.flags);
			return;
		}
		there = read_to(device, HEADER + header.size);
	}
	if (there < 0)
		device_close(device);
	if (there < 1)
		return;
	device->in.got = 0;
	lab.messages++;
	if (!handle(device, &header, device->in.bytes + HEADER))
		node_broken(node, "request %u of %u bytes to its devices is not valid", header.request, header.size);
	drop_fds(device);
	if (device->memory.lost)
		node_broken(node, "it took its memory away");
}

/* --- interrupts */

/* Wait for the guest's answer; it may ask the calendar for the time first. */
static bool called(struct device *device)
{
	uint64_t deadline = real_ms() + lab.spin_real_ms;
	uint8_t bytes[HEADER + 8];
	size_t got = 0;

	while (got < sizeof bytes) {
		ssize_t part = recv(device->calls, bytes + got, sizeof bytes - got, 0);

		if (part > 0) {
			got += (size_t)part;
		} else if (part == 0 || (errno != EAGAIN && errno != EINTR)) {
			return false;
		} else {
			calendar_readable(device->node);
			if (device->node->state == OFF)
				return false;
		}
		if (got < sizeof bytes && real_ms() > deadline) {
			node_broken(device->node, "it does not answer an interrupt");
			return false;
		}
	}
	lab.messages++;
	return true;
}

/* Interrupt a guest that stands, if it wants to know; it asks for time to handle it. False: its kernel is gone. */
bool device_call(struct device *device, int ring)
{
	struct { struct header header; struct ring_state state; } message = {
		{ VRING_CALL, VERSION | NEED_REPLY, sizeof message.state }, { (uint32_t)ring, 0 }
	};
	int wants = ring_wants_call(device, ring);

	if (wants < 0) {
		node_broken(device->node, "a ring of its devices is outside of its memory");
		return false;
	}
	if (!wants || device->calls < 0)
		return true;
	node_set_time(device->node);
	lab.calls++;
	if (send(device->calls, &message, sizeof message, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof message)
		return false;
	if (!called(device))
		return false;
	node_read_request(device->node);
	return true;
}
