/* The calendar: kernels ask for time and are granted it, one after another (linux/um_timetravel.h, shared memory
 * version 2). Each kernel has shared memory of its own, so none can disturb another one's clock.
 */
#include "lab.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum operation { ACK, START, REQUEST, WAIT, GET, UPDATE, RUN, FREE_UNTIL, GET_TOD, BROADCAST };

struct calendar_message {
	uint32_t operation, sequence;
	uint64_t time;
};

#define SHARES_TIME 1           /* capability of a client */
#define WANTS_TO_RUN 1          /* flag of a client */
#define SIMULATOR 0             /* numbers of the clients in a kernel's shared memory */
#define KERNEL 1
#define CLIENTS 32

struct calendar_client {
	union {
		struct {
			uint32_t capabilities, flags;
			uint64_t request, name;
		};
		char reserved[128];
	};
};

struct calendar_memory {
	union {
		struct {
			uint32_t version, length;
			uint64_t free_until, time;
			uint16_t running, clients;
		};
		char reserved[4096];
	};
	struct calendar_client client[CLIENTS];
};

/* A node runs for at most so long; the watchdog measures real time within one such slice. */
#define SLICE 100000000u

/* --- nodes */

static void share_memory(struct node *node)
{
	node->shared_fd = memfd_create("calendar", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (node->shared_fd < 0 || ftruncate(node->shared_fd, sizeof *node->shared))
		die("no shared memory: %s", strerror(errno));
	fcntl(node->shared_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	node->shared = mmap(NULL, sizeof *node->shared, PROT_READ | PROT_WRITE, MAP_SHARED, node->shared_fd, 0);
	if (node->shared == MAP_FAILED)
		die("no shared memory: %s", strerror(errno));
}

/* A node without NICs yet; the caller has checked the name. */
struct node *node_add(const char *name)
{
	struct node *node = &lab.nodes[lab.node_count++];

	snprintf(node->name, sizeof node->name, "%s", name);
	node->id = (uint32_t)lab.node_count;
	node->calendar.fd = -1;
	node->request = FOREVER;
	node->hash = XXH3_createState();
	if (!node->hash)
		die("no memory");
	trace_reset(node);
	share_memory(node);
	device_init(&node->serial, SERIAL, node, 0);
	return node;
}

struct node *node_find(const char *name)
{
	for (int i = 0; i < lab.node_count; i++)
		if (name && !strcmp(lab.nodes[i].name, name))
			return &lab.nodes[i];
	return NULL;
}

/* Forget a node's kernel: its connections, what is on its way to it, and what it asked for. */
void node_off(struct node *node)
{
	event_forget(node);
	for (size_t i = 0; i < node->kept_count; i++)
		frame_drop(node->kept[i]->frame), free(node->kept[i]);
	node->kept_count = 0;
	unwatch(&node->calendar);
	for (int i = 0; i < node->nic_count; i++)
		device_close(&node->nics[i]);
	device_close(&node->serial);
	node->generation++;
	node->state = OFF;
	node->request = FOREVER;
	node->ended = node->frozen = node->ready = false;
	node->partial_size = 0;
}

/* Cut off a node whose kernel sends garbage. */
void node_broken(struct node *node, const char *format, ...)
{
	char sentence[MAX_SENTENCE];
	va_list words;

	if (node->state == OFF && node->calendar.fd < 0 && node->serial.connection.fd < 0)
		return;
	va_start(words, format);
	vsnprintf(sentence, sizeof sentence, format, words);
	va_end(words);
	control_tell("+broken %s %llu %s", node->name, (unsigned long long)node_clock(node), sentence);
	node_off(node);
	if (!lab.reason[0])
		snprintf(lab.reason, sizeof lab.reason, "lost %s", node->name);
}

/* --- time */

/* The time of a node: while it runs, what its kernel says, within what it was granted. */
uint64_t node_clock(const struct node *node)
{
	uint64_t time;

	if (node->state == HELD)
		return node->held_at;
	if (node->state != RUNNING)
		return lab.now;
	time = __atomic_load_n(&node->shared->time, __ATOMIC_ACQUIRE);
	if (time < lab.now)
		return lab.now;
	return time > node->limit ? node->limit : time;
}

static uint64_t wants_at(const struct node *node)
{
	return node->state == WAITING && !node->frozen ? node->request : FOREVER;
}

/* Until when a node can run: nothing can reach it before. Others that run meanwhile began at `began`. What events do is
 * known since event_horizons().
 */
static uint64_t horizon(const struct node *node)
{
	uint64_t limit = node->event_horizon, slice = lab.now + SLICE;

	for (int i = 0; i < lab.node_count; i++) {
		const struct node *other = &lab.nodes[i];
		uint64_t at = other->state == RUNNING ? other->began : wants_at(other);

		if (other != node && at < FOREVER && at + lab.lookahead < limit)
			limit = at + lab.lookahead;
	}
	if (lab.until < limit)
		limit = lab.until;
	return slice < limit ? slice : limit;
}

/* A running node must stop at `limit`. */
void node_stop_at(struct node *node, uint64_t limit)
{
	if (node->state != RUNNING || limit >= node->limit)
		return;
	node->limit = limit;
	if (node->shared->free_until > limit)
		__atomic_store_n(&node->shared->free_until, limit, __ATOMIC_RELEASE);
}

/* A running node did something with its devices; what follows from it may reach it soon. */
void node_shorten(struct node *node)
{
	uint64_t limit, clock = node_clock(node);

	event_horizons();
	limit = horizon(node);
	node_stop_at(node, limit < clock ? clock : limit);
}

/* The earliest time at which something can be done to a node. It may have come a little farther than the lab: not so far
 * that another node could have noticed.
 */
uint64_t node_reachable_at(const struct node *node)
{
	uint64_t clock = node_clock(node);

	return node->state == WAITING && node->limit > clock ? node->limit : clock;
}

/* Tell a kernel that stands what time it is, before an interrupt. */
void node_set_time(struct node *node)
{
	if (node->state == RUNNING)
		return;
	node->shared->running = SIMULATOR;
	node->shared->time = lab.now;
	__atomic_store_n(&node->shared->free_until, FOREVER, __ATOMIC_RELEASE);
}

/* What a kernel that stands has asked for. */
void node_read_request(struct node *node)
{
	struct calendar_client *client = &node->shared->client[KERNEL];

	if (__atomic_load_n(&client->flags, __ATOMIC_ACQUIRE) & WANTS_TO_RUN)
		node->request = client->request < FOREVER ? client->request : FOREVER;
}

static bool send_message(struct node *node, struct calendar_message message)
{
	return send(node->calendar.fd, &message, sizeof message, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof message;
}

static void acknowledge(struct node *node, uint32_t sequence, uint64_t time)
{
	if (!send_message(node, (struct calendar_message){ ACK, sequence, time }) && errno == EAGAIN)
		node_broken(node, "it does not read the answers of the calendar");
}

/* --- messages of kernels */

static void stands(struct node *node)
{
	node->state = WAITING;
	node->ready = true;
	node_read_request(node);
}

static void handle(struct node *node, const struct calendar_message *message)
{
	switch (message->operation) {
	case WAIT:
		if (node->state == RUNNING)
			stands(node);
		return;
	case REQUEST:
		node->request = message->time < FOREVER - node->offset ? message->time + node->offset : FOREVER;
		acknowledge(node, message->sequence, 0);
		return;
	case GET:
		acknowledge(node, message->sequence, node_clock(node) - node->offset);
		return;
	case GET_TOD:
		acknowledge(node, message->sequence, lab.start_tod + node_clock(node));
		return;
	case UPDATE: case BROADCAST:
		acknowledge(node, message->sequence, 0);
		return;
	case ACK:               /* of a grant, by a kernel without shared memory */
		return;
	default:
		node_broken(node, "operation %u to the calendar is not known", message->operation);
	}
}

/* The kernel hung up. Between runs this is what a power cut looks like, too: it is told when the next run begins. */
static void hung_up(struct node *node)
{
	node->ended_at = node_clock(node);
	unwatch(&node->calendar);
	node->ended = true;
	if (node->state == RUNNING || node->state == HELD)
		node->state = WAITING;
	node->request = FOREVER;
}

static void report_ended(void)
{
	for (int i = 0; i < lab.node_count; i++) {
		struct node *node = &lab.nodes[i];

		if (!node->ended)
			continue;
		control_tell("+lost %s %llu", node->name, (unsigned long long)node->ended_at);
		node_off(node);
		if (!lab.reason[0])
			snprintf(lab.reason, sizeof lab.reason, "lost %s", node->name);
	}
}

void calendar_readable(struct node *node)
{
	struct calendar_message message;
	ssize_t got;

	if (node->calendar.fd < 0)
		return;
	got = recv(node->calendar.fd, node->partial + node->partial_size, sizeof node->partial - node->partial_size,
		   MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		hung_up(node);
		return;
	}
	node->partial_size += (size_t)got;
	if (node->partial_size < sizeof message)
		return;
	memcpy(&message, node->partial, sizeof message);
	node->partial_size = 0;
	lab.messages++;
	handle(node, &message);
}

/* --- kernels that connect */

struct newcomer {
	struct source source;
	struct calendar_message message;
	size_t got;
};

void calendar_connect(void)
{
	int fd = accept4(lab.calendar_listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct newcomer *newcomer;

	if (fd < 0)
		return;
	newcomer = must_allocate(sizeof *newcomer);
	watch(&newcomer->source, FROM_NEWCOMER, fd, newcomer);
}

/* The first answer, with the memory that the kernel shares with the calendar, and a place for its log. */
static bool welcome(struct node *node, uint32_t sequence)
{
	struct calendar_message message = { ACK, sequence, KERNEL };
	int log = open("/dev/null", O_WRONLY | O_CLOEXEC), fds[2] = { node->shared_fd, log };
	char control[CMSG_SPACE(sizeof fds)] = { 0 };
	struct iovec part = { &message, sizeof message };
	struct msghdr parts = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				.msg_controllen = sizeof control };
	struct cmsghdr *header = CMSG_FIRSTHDR(&parts);
	ssize_t sent;

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof fds);
	memcpy(CMSG_DATA(header), fds, sizeof fds);
	sent = sendmsg(node->calendar.fd, &parts, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(log);
	return sent == sizeof message;
}

static void start(struct node *node, int fd, uint32_t sequence)
{
	struct calendar_memory *shared = node->shared;

	node_off(node);
	watch(&node->calendar, FROM_CALENDAR, fd, node);
	node->state = RUNNING;
	node->offset = node->began = node->limit = lab.now;
	memset(shared, 0, sizeof *shared);
	shared->version = 2;
	shared->length = sizeof *shared;
	shared->clients = CLIENTS;
	shared->client[SIMULATOR].capabilities = SHARES_TIME;
	shared->running = KERNEL;
	shared->time = lab.now;
	shared->free_until = lab.now + 1;       /* it boots at this instant, as far as it goes without time */
	if (!welcome(node, sequence))
		node_broken(node, "it does not read the answers of the calendar");
}

void newcomer_readable(struct source *source)
{
	struct newcomer *newcomer = source->owner;
	ssize_t got = recv(source->fd, (char *)&newcomer->message + newcomer->got, sizeof newcomer->message - newcomer->got,
			   MSG_DONTWAIT);
	struct node *node = NULL;
	int fd;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	newcomer->got += got > 0 ? (size_t)got : 0;
	if (got > 0 && newcomer->got < sizeof newcomer->message)
		return;
	fd = dup(source->fd);
	unwatch(source);
	if (got > 0 && newcomer->message.operation == START && newcomer->message.time >= 1
	    && newcomer->message.time <= (uint64_t)lab.node_count)
		node = &lab.nodes[newcomer->message.time - 1];
	if (!node || (node->state != OFF && !node->ended) || fd < 0)
		close(fd);      /* nobody we know, or a second kernel of a node that has one */
	else
		start(node, fd, newcomer->message.sequence);
	free(newcomer);
}

/* --- running */

static struct node *running(void)
{
	for (int i = 0; i < lab.node_count; i++)
		if (lab.nodes[i].state == RUNNING)
			return &lab.nodes[i];
	return NULL;
}

/* Serve the kernels until this one has connected and stands; false: not within the limit. */
bool await_node(const struct node *node, uint64_t limit_real_ms)
{
	uint64_t deadline = real_ms() + limit_real_ms;

	while (!node->ready || node->state == RUNNING) {
		uint64_t time = real_ms();

		if (time >= deadline || lab.stop || node->ended)
			return false;
		serve(deadline - time < 1000 ? (int)(deadline - time) : 1000);
	}
	return true;
}

/* Serve the kernels until all that are connected stand; false: one does not, and within the watchdog's limit nothing was
 * heard of any. On a busy machine many that run side by side may take long, but each is heard of; ten limits are too
 * long for everybody.
 */
static bool settle(void)
{
	uint64_t start = real_ms(), heard_at = start, heard = lab.messages;

	while (running()) {
		uint64_t time = real_ms();

		if (heard != lab.messages)
			heard_at = time;
		heard = lab.messages;
		if (lab.stop || time - heard_at >= lab.spin_real_ms || time - start >= 10 * (uint64_t)lab.spin_real_ms)
			return false;
		serve(lab.spin_real_ms < 1000 ? (int)lab.spin_real_ms : 1000);
	}
	return true;
}

static void grant(struct node *node, uint64_t at)
{
	struct calendar_memory *shared = node->shared;

	node->limit = horizon(node);
	node->began = at;
	node->state = RUNNING;
	node->request = FOREVER;
	node->grants++;
	shared->client[KERNEL].flags &= ~(uint32_t)WANTS_TO_RUN;
	shared->running = KERNEL;
	shared->time = at;
	__atomic_store_n(&shared->free_until, node->limit, __ATOMIC_RELEASE);
	if (!send_message(node, (struct calendar_message){ RUN, 0, at - node->offset }))
		hung_up(node);
}

/* A frozen node's NICs go on as far as they have buffers. */
static void keep(struct node *node, const struct event *event)
{
	struct event *copy;

	if (event->kind == DELIVER && event->device->kept >= event->device->rings[0].size) {
		event->device->frames_lost++;
		frame_drop(event->frame);
		return;
	}
	event->device->kept += event->kind == DELIVER;
	copy = must_allocate(sizeof *copy);
	*copy = *event;
	if (node->kept_count == node->kept_room) {
		node->kept_room = node->kept_room ? 2 * node->kept_room : 64;
		node->kept = must_grow(node->kept, node->kept_room * sizeof *node->kept);
	}
	node->kept[node->kept_count++] = copy;
}

static void to_node(struct node *node, struct event *event)
{
	switch (event->kind) {
	case RESUME:
		serial_resume(node);
		break;
	case SENT:
		frame_sent(event);
		break;
	case DELIVER:
		frame_deliver(event);
		break;
	default:
		serial_input(event->device);
	}
}

static void carry_out(struct event *event)
{
	struct node *node = event->device->node;

	if (event->kind == AT_SWITCH) {
		frame_at_switch(event);
		return;
	}
	if (event->kind == TIMER) {
		rule_timer(event);
		return;
	}
	if (event->generation != node->generation) {
		frame_drop(event->frame);
		return;
	}
	if (event->kind == AT_PORT) {
		frame_at_port(event);
		return;
	}
	if (node->frozen) {
		keep(node, event);
		return;
	}
	to_node(node, event);
}

static uint64_t first_wish(void)
{
	uint64_t first = FOREVER;

	for (int i = 0; i < lab.node_count; i++)
		if (wants_at(&lab.nodes[i]) < first)
			first = wants_at(&lab.nodes[i]);
	return first > lab.now ? first : lab.now;
}

/* Grant time to all that want to run before anything can reach them. They run side by side: none notices another. */
static void grant_all(void)
{
	event_horizons();
	for (int i = 0; i < lab.node_count; i++) {
		struct node *node = &lab.nodes[i];
		uint64_t at = wants_at(node) > lab.now ? wants_at(node) : lab.now;

		if (wants_at(node) < FOREVER && at < horizon(node))
			grant(node, at);
	}
}

/* The next thing that happens, before the end of this run; false: nothing does. */
static bool step(void)
{
	struct event *event = event_first();
	uint64_t wish = first_wish(), at = event && event->at <= wish ? event->at : wish;

	if (at >= lab.until)
		return false;
	if (at > lab.now)
		lab.now = at;
	if (event && event->at <= wish) {
		struct event taken = event_pop();

		carry_out(&taken);
	} else {
		grant_all();
	}
	return true;
}

/* Let virtual time go on until then, or until there is a reason to stop, which is in lab.reason. */
void run_until(uint64_t until)
{
	unsigned steps = 0;

	lab.reason[0] = 0;
	lab.until = until;
	for (;;) {
		if (!settle() && !lab.stop) {
			struct node *node = running();

			if (node && !lab.reason[0])
				snprintf(lab.reason, sizeof lab.reason, "spin %s", node->name);
		}
		report_ended();
		if (lab.reason[0] || lab.stop)
			break;
		if (!step()) {
			lab.now = until;
			snprintf(lab.reason, sizeof lab.reason, "time");
			break;
		}
		if (++steps % 256 == 0)
			serve(0);
	}
	lab.until = lab.now;
}

/* --- freezing */

void freeze(struct node *node)
{
	node->frozen = true;
}

/* The node goes on; what came for it meanwhile reaches it now, as far as its buffers go. */
void thaw(struct node *node)
{
	node->frozen = false;
	for (size_t i = 0; i < node->kept_count; i++) {
		node->kept[i]->at = node_reachable_at(node);
		node->kept[i]->device->kept = 0;
		event_push(*node->kept[i]);
		free(node->kept[i]);
	}
	node->kept_count = 0;
}
