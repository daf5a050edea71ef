/* The serial lines: a virtio console for each node (virtio 1.2, 5.3). Ring 0 takes bytes to the guest, ring 1 from it. */
#include "lab.h"

#include <string.h>

#define TO_GUEST 0
#define FROM_GUEST 1
#define LARGEST 65536           /* bytes of one chain of buffers */

/* --- from the guest */

/* The run ends: this node does what it can at this instant, and no more. */
static void wake(struct node *node)
{
	if (!lab.reason[0])
		snprintf(lab.reason, sizeof lab.reason, "wake %s", node->name);
	node_stop_at(node, node_clock(node));
}

/* Tell what the guest has written; false: garbage. */
static bool tell(struct device *serial)
{
	static uint8_t bytes[LARGEST];
	char prefix[MAX_NAME + 40];
	uint64_t clock = node_clock(serial->node);
	uint32_t turns = 0;
	uint16_t head;
	int got;

	snprintf(prefix, sizeof prefix, "+said %s %llu ", serial->node->name, (unsigned long long)clock);
	while ((got = ring_take(serial, FROM_GUEST, &head, &turns)) > 0) {
		ssize_t length = ring_read(serial, FROM_GUEST, head, bytes, sizeof bytes);

		if (length < 0 || ring_give(serial, FROM_GUEST, head, 0) < 0)
			return false;
		if (!length)
			continue;
		trace_bytes(serial, clock, bytes, (size_t)length);
		control_tell_bytes(prefix, bytes, (size_t)length);
		if (serial->node->wakes && (!lab.wake_for_lines || memchr(bytes, '\n', (size_t)length)))
			wake(serial->node);
	}
	return got == 0;
}

static void tell_or_break(struct device *serial)
{
	if (!tell(serial))
		node_broken(serial->node, "its console has a bad chain of buffers");
	else
		node_shorten(serial->node);
}

static struct event event_for(struct device *serial, enum event_kind kind)
{
	struct event event = { .at = node_reachable_at(serial->node), .kind = kind, .device = serial,
			       .generation = serial->node->generation };

	event.order.to = serial->id;
	event.order.number = ++serial->inputs;
	return event;
}

/* The guest has written, or has room for bytes. True: it is held, and its kick is acknowledged later.
 *
 * Other nodes may not have come so far yet. The guest stands still within its write until they have: so the client hears
 * everything in the order of time, and where it waits for these bytes, its run ends at exactly this instant.
 */
bool serial_kicked(struct device *serial, uint32_t ring, bool acknowledge)
{
	struct node *node = serial->node;

	if (ring == TO_GUEST && serial->input_size) {
		event_push(event_for(serial, INPUT));
		node_shorten(node);
	}
	if (ring != FROM_GUEST || !ring_ready(serial, FROM_GUEST))
		return false;
	if (!acknowledge || node_clock(node) <= lab.now) {
		tell_or_break(serial);
		return false;
	}
	event_push(event_for(serial, RESUME));
	node->held_at = node_clock(node);
	node->state = HELD;
	return true;
}

/* All others have come as far as this node: it goes on. */
void serial_resume(struct node *node)
{
	node->state = RUNNING;
	node->began = lab.now;
	tell_or_break(&node->serial);
	device_acknowledge(&node->serial, 35, 0);
}

/* --- to the guest */

/* Bytes for the guest, at this instant (where it stands within a write: at that one). */
void serial_say(struct node *node, const uint8_t *bytes, size_t length)
{
	struct device *serial = &node->serial;

	if (serial->input_room < serial->input_size + length) {
		serial->input_room = 2 * (serial->input_size + length);
		serial->input = must_grow(serial->input, serial->input_room);
	}
	memcpy(serial->input + serial->input_size, bytes, length);
	serial->input_size += length;
	event_push(event_for(serial, INPUT));
}

/* Move bytes into the guest's buffers, as far as it has some. */
void serial_input(struct device *serial)
{
	size_t done = 0;
	uint32_t turns = 0;
	uint16_t head;
	int got = 0;

	if (!ring_ready(serial, TO_GUEST))
		return;         /* the kernel says when its console is there */
	while (done < serial->input_size && (got = ring_take(serial, TO_GUEST, &head, &turns)) > 0) {
		ssize_t written = ring_write(serial, TO_GUEST, head, serial->input + done, serial->input_size - done);

		if (written < 0 || ring_give(serial, TO_GUEST, head, (uint32_t)written) < 0) {
			got = -1;
			break;
		}
		done += (size_t)written;
	}
	if (got < 0) {
		node_broken(serial->node, "its console has a bad chain of buffers");
		return;
	}
	if (done) {
		serial->input_size -= done;
		memmove(serial->input, serial->input + done, serial->input_size);
		device_call(serial, TO_GUEST);
	}
}
