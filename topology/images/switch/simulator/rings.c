/* A guest's memory and its virtqueues (virtio 1.2, 2.7: split virtqueues). The guest is not believed: every address,
 * index, length and chain is checked, and each is read once. -1 means garbage.
 */
#include "lab.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT 1                  /* flags of a descriptor: the chain goes on, the device writes, a table of descriptors */
#define WRITE 2
#define INDIRECT 4
#define NO_INTERRUPT 1          /* flag of the available ring */

struct descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t flags, next;
};

static uint8_t *region_find(const struct memory *memory, uint64_t address, uint64_t length, bool user)
{
	for (int i = 0; i < memory->count; i++) {
		const struct region *region = &memory->regions[i];
		uint64_t start = user ? region->user : region->guest;

		if (address >= start && length <= region->size && address - start <= region->size - length)
			return region->at + (address - start);
	}
	return NULL;
}

uint8_t *guest_at(const struct memory *memory, uint64_t address, uint64_t length)
{
	return region_find(memory, address, length, false);
}

/* Map memory that a guest shares; the fds stay the caller's. */
bool memory_map(struct memory *memory, const struct region *wanted, const uint64_t *offsets, const int *fds, int count)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	memory_unmap(memory);
	for (int i = 0; i < count; i++) {
		struct region region = wanted[i];
		uint64_t before = offsets[i] % page;
		struct stat facts;

		if (!region.size || region.size > (uint64_t)1 << 40 || offsets[i] > (uint64_t)1 << 40
		    || region.guest > UINT64_MAX - region.size || region.user > UINT64_MAX - region.size
		    || fstat(fds[i], &facts) || (uint64_t)facts.st_size < offsets[i] + region.size)
			return false;
		region.mapped_size = region.size + before;
		region.mapped = mmap(NULL, region.mapped_size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i],
				     (off_t)(offsets[i] - before));
		if (region.mapped == MAP_FAILED)
			return false;
		region.at = (uint8_t *)region.mapped + before;
		memory->regions[memory->count++] = region;
	}
	return true;
}

void memory_unmap(struct memory *memory)
{
	for (int i = 0; i < memory->count; i++)
		munmap(memory->regions[i].mapped, memory->regions[i].mapped_size);
	memory->count = 0;
	memory->lost = false;
}

bool ring_ready(const struct device *device, int ring)
{
	return ring >= 0 && ring < MAX_QUEUES && device->rings[ring].enabled && device->rings[ring].known
		&& device->rings[ring].size && device->connection.fd >= 0;
}

static uint16_t *available_at(struct device *device, struct ring *ring)
{
	return (uint16_t *)(void *)region_find(&device->memory, ring->available, 6 + 2 * (uint64_t)ring->size, true);
}

static uint16_t *used_at(struct device *device, struct ring *ring)
{
	return (uint16_t *)(void *)region_find(&device->memory, ring->used, 6 + 8 * (uint64_t)ring->size, true);
}

/* The head of the next chain that the guest offers: 1 got, 0 none, -1 garbage. `turns` begins with 0 and counts: what is
 * offered at one time is a ring full at most, so a guest that offers on and on ends nothing but its own time.
 */
int ring_take(struct device *device, int number, uint16_t *head, uint32_t *turns)
{
	struct ring *ring = &device->rings[number];
	uint16_t *available = available_at(device, ring), index;

	if (!available || (uintptr_t)available % 2)
		return -1;
	index = __atomic_load_n(&available[1], __ATOMIC_ACQUIRE);
	if (index == ring->next || (*turns)++ == ring->size)
		return 0;
	if ((uint16_t)(index - ring->next) > ring->size)
		return -1;
	*head = available[2 + ring->next % ring->size];
	if (*head >= ring->size)
		return -1;
	ring->next++;
	return 1;
}

/* Follow a chain and copy from or to it, as far as `length` bytes; -> how many, -1 garbage. Buffers in the other
 * direction are passed over.
 */
static ssize_t walk(struct device *device, int number, uint16_t head, uint8_t *bytes, size_t length, bool write)
{
	struct ring *ring = &device->rings[number];
	uint8_t *table = region_find(&device->memory, ring->descriptors, 16 * (uint64_t)ring->size, true);
	size_t done = 0;

	if (!table || head >= ring->size)
		return -1;
	for (uint32_t steps = 0; steps < ring->size; steps++) {
		struct descriptor each;
		uint8_t *at;
		size_t part;

		memcpy(&each, table + 16 * (size_t)head, sizeof each);
		at = guest_at(&device->memory, each.address, each.length);
		if (!at || each.flags & INDIRECT)
			return -1;
		if (!!(each.flags & WRITE) == write) {
			part = each.length < length - done ? each.length : length - done;
			if (write)
				memcpy(at, bytes + done, part);
			else
				memcpy(bytes + done, at, part);
			done += part;
		}
		if (!(each.flags & NEXT))
			return device->memory.lost ? -1 : (ssize_t)done;
		if (each.next >= ring->size)
			return -1;
		head = each.next;
	}
	return -1;              /* the chain is a circle */
}

ssize_t ring_read(struct device *device, int ring, uint16_t head, uint8_t *bytes, size_t room)
{
	return walk(device, ring, head, bytes, room, false);
}

ssize_t ring_write(struct device *device, int ring, uint16_t head, const uint8_t *bytes, size_t length)
{
	return walk(device, ring, head, (uint8_t *)(uintptr_t)bytes, length, true);
}

/* Give a chain back to the guest; 0, or -1 for garbage. */
int ring_give(struct device *device, int number, uint16_t head, uint32_t length)
{
	struct ring *ring = &device->rings[number];
	uint16_t *used = used_at(device, ring), index;
	uint32_t entry[2] = { head, length };

	if (!used || (uintptr_t)used % 4)
		return -1;
	index = used[1];
	memcpy((uint8_t *)used + 4 + 8 * (size_t)(index % ring->size), entry, sizeof entry);
	__atomic_store_n(&used[1], (uint16_t)(index + 1), __ATOMIC_SEQ_CST);
	return device->memory.lost ? -1 : 0;
}

/* 1: the guest wants an interrupt for used buffers, 0: it does not, -1: garbage. */
int ring_wants_call(struct device *device, int number)
{
	uint16_t *available = available_at(device, &device->rings[number]);

	if (!available || (uintptr_t)available % 2)
		return -1;
	return !(__atomic_load_n(&available[0], __ATOMIC_SEQ_CST) & NO_INTERRUPT);
}

/* A guest can shorten the file of its memory, or fill the file system below it; then an access here is a SIGBUS.
 * Empty memory takes the place of that region, and the device is marked.
 */
static bool replace_region(struct memory *memory, const uint8_t *address)
{
	for (int i = 0; i < memory->count; i++) {
		struct region *region = &memory->regions[i];
		uint8_t *start = region->mapped;

		if (address >= start && address < start + region->mapped_size) {
			memory->lost = true;
			return mmap(start, region->mapped_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
				    | MAP_NORESERVE, -1, 0) != MAP_FAILED;
		}
	}
	return false;
}

static void memory_fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	for (int i = 0; i < lab.node_count; i++) {
		struct node *node = &lab.nodes[i];

		for (int k = 0; k < node->nic_count; k++)
			if (replace_region(&node->nics[k].memory, info->si_addr))
				return;
		if (replace_region(&node->serial.memory, info->si_addr))
			return;
	}
	signal(number, SIG_DFL);
	raise(number);
}

void guard_guest_memory(void)
{
	struct sigaction action = { .sa_sigaction = memory_fault, .sa_flags = SA_SIGINFO };

	sigaction(SIGBUS, &action, NULL);
}
