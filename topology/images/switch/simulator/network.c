/* The Ethernet switch: NICs, cables, and one table of addresses for each segment. */
#include "lab.h"

#include <string.h>

#define NET_HEADER 12           /* bytes of the header that virtio-net puts before a frame (virtio 1.2, 5.1.6) */
#define SHORTEST 60             /* bytes of a frame on the wire; a shorter one is padded */
#define AROUND 24               /* preamble, checksum and gap on the wire */
#define LONGEST_QUEUE 1000      /* frames that wait for a cable at the switch; more are lost, as in txqueuelen */

/* How long the wire is busy with a frame. */
static uint64_t wire_ns(const struct segment *segment, int length)
{
	uint64_t bits = 8 * (uint64_t)((length < SHORTEST ? SHORTEST : length) + AROUND);

	return segment->bits_per_s ? bits * 1000000000u / segment->bits_per_s : 0;
}

static struct event event_for(struct device *nic, enum event_kind kind, uint64_t at)
{
	struct event event = { .at = at, .kind = kind, .device = nic, .generation = nic->node->generation };

	event.order.to = nic->id;
	return event;
}

/* --- from a node */

static struct event sent_event(struct device *nic, uint16_t head, uint64_t at, uint64_t number)
{
	struct event event = event_for(nic, SENT, at);

	event.head = head;
	event.order.number = number;
	return event;
}

/* One chain of buffers that the guest wants to send. A guest that wants to know when it is sent gets an event for that;
 * any other one gets its buffers back on the way.
 */
static bool send_one(struct device *nic, uint16_t head, bool wants_call)
{
	static uint8_t bytes[NET_HEADER + MAX_FRAME];
	ssize_t length = ring_read(nic, 1, head, bytes, sizeof bytes);
	uint64_t clock = node_clock(nic->node);
	struct event event;

	if (length < 0)
		return false;
	if (nic->sending_until < clock)
		nic->sending_until = clock;
	length -= NET_HEADER;
	if (length > 0)
		nic->sending_until += wire_ns(nic->segment, (int)length);
	nic->frames_sent++;
	if (length < 14 || length >= MAX_FRAME) /* no frame */
		return ring_give(nic, 1, head, 0) == 0;
	if (wants_call)
		event_push(sent_event(nic, head, nic->sending_until, nic->frames_sent));
	event = event_for(nic, AT_SWITCH, nic->sending_until);
	event.order.from = nic->id;
	event.order.number = nic->frames_sent;
	event.frame = frame_make(bytes + NET_HEADER, (size_t)length);
	event.head = head;
	event.gives_back = !wants_call;
	event_push(event);
	return true;
}

/* The guest has something to send. */
void nic_kicked(struct device *nic)
{
	uint32_t turns = 0;
	uint16_t head;
	int got = 0, wants_call;

	if (!ring_ready(nic, 1))
		return;
	wants_call = ring_wants_call(nic, 1);
	while (wants_call >= 0 && (got = ring_take(nic, 1, &head, &turns)) > 0)
		if (!send_one(nic, head, wants_call)) {
			got = -1;
			break;
		}
	if (got < 0 || wants_call < 0)
		node_broken(nic->node, "NIC %d has a bad chain of buffers to send", nic->number);
	else
		node_shorten(nic->node);
}

/* A frame is on the wire: the guest gets its buffers back. */
void frame_sent(struct event *event)
{
	struct device *nic = event->device;

	if (!ring_ready(nic, 1))
		return;
	if (ring_give(nic, 1, event->head, 0) < 0)
		node_broken(nic->node, "NIC %d has a ring outside of its memory", nic->number);
	else
		device_call(nic, 1);
}

/* A frame has left a guest that did not want to know: its buffers are its own again. If it wants to know by now (it has
 * none left), it hears of it as soon as that is possible.
 */
static void give_back(const struct event *event)
{
	struct device *nic = event->device;

	if (event->generation != nic->node->generation || !ring_ready(nic, 1))
		return;
	if (ring_wants_call(nic, 1) > 0)
		event_push(sent_event(nic, event->head, node_reachable_at(nic->node), event->order.number));
	else if (ring_give(nic, 1, event->head, 0) < 0)
		node_broken(nic->node, "NIC %d has a ring outside of its memory", nic->number);
}

/* --- in the switch */

static struct address_entry *look_up(struct segment *segment, const uint8_t *mac)
{
	for (int i = 0; i < segment->table_size; i++)
		if (!memcmp(segment->table[i].mac, mac, 6))
			return &segment->table[i];
	return NULL;
}

static void learn(struct segment *segment, const uint8_t *mac, struct device *nic)
{
	struct address_entry *entry = look_up(segment, mac);
	int room = sizeof segment->table / sizeof *segment->table;

	if (!entry && segment->table_size < room) {
		entry = &segment->table[segment->table_size++];
		memcpy(entry->mac, mac, 6);
	}
	if (entry)
		entry->device = nic;
}

/* A frame leaves the switch for a node. */
static void to_nic(struct device *nic, const struct event *cause)
{
	struct event event = event_for(nic, AT_PORT, lab.now);

	event.order.from = cause->order.from;
	event.order.number = cause->order.number;
	event.order.copy = cause->order.copy;
	event.frame = frame_share(cause->frame);
	frame_at_port(&event);
}

/* Put a frame on the cable towards a node. */
static void to_cable(struct device *nic, const struct event *cause)
{
	uint64_t start = lab.now + nic->segment->latency, wire = wire_ns(nic->segment, cause->frame->length);
	struct event event;

	if (start < nic->receiving_until)
		start = nic->receiving_until;
	if (nic->node->state == OFF || start - lab.now > nic->segment->latency + LONGEST_QUEUE * wire) {
		nic->frames_lost++;
		return;
	}
	capture_cable(nic, cause->frame, true);
	nic->receiving_until = start + wire;
	event = event_for(nic, DELIVER, start + wire);
	event.order.from = cause->order.from;
	event.order.number = cause->order.number;
	event.order.copy = cause->order.copy;
	event.frame = frame_share(cause->frame);
	event_push(event);
}

/* It goes through the rules of its receiver. */
void frame_at_port(struct event *event)
{
	if (!rules_pass(event))
		return;
	to_cable(event->device, event);
	frame_drop(event->frame);
}

static void to_all(const struct event *cause)
{
	for (int i = 0; i < lab.node_count; i++)
		for (int k = 0; k < lab.nodes[i].nic_count; k++) {
			struct device *nic = &lab.nodes[i].nics[k];

			if (nic->segment == cause->device->segment && nic != cause->device)
				to_nic(nic, cause);
		}
}

static void forward(const struct event *event)
{
	struct segment *segment = event->device->segment;
	const uint8_t *bytes = event->frame->bytes;
	struct address_entry *known;

	if (!(bytes[6] & 1))
		learn(segment, bytes + 6, event->device);
	known = bytes[0] & 1 ? NULL : look_up(segment, bytes);
	if (!known)
		to_all(event);
	else if (known->device != event->device)
		to_nic(known->device, event);
}

/* A frame arrives at the switch, or goes on there behind a rule. */
void frame_at_switch(struct event *event)
{
	struct device *nic = event->device;

	if (event->gives_back) {
		event->gives_back = false;
		give_back(event);
	}
	if (!event->rule && !nic->out_up) {
		nic->frames_lost++;
		frame_drop(event->frame);
		return;
	}
	if (!event->rule) {
		trace_frame(nic, event->at, event->frame);
		capture_cable(nic, event->frame, false);
	}
	if (!rules_pass(event))
		return;
	capture_segment(nic->segment, event->frame);
	forward(event);
	frame_drop(event->frame);
}

/* A frame that no node has sent: as if it came out of a node, or on its way into one; from behind a rule, or with 0
 * through all of them.
 */
void frame_inject(struct device *nic, bool to_node, uint64_t at, uint32_t behind, struct frame *frame)
{
	struct event event = event_for(nic, to_node ? AT_PORT : AT_SWITCH, at);

	event.order.from = nic->id;
	event.order.copy = (uint32_t)++lab.injected;
	event.rule = behind;
	event.frame = frame_share(frame);
	event_push(event);
}

/* NODE.NIC or a segment. */
bool place_find(const char *name, struct device **nic, struct segment **segment)
{
	const char *dot = strrchr(name, '.');
	uint64_t number;

	*nic = NULL;
	*segment = NULL;
	for (int i = 0; i < lab.segment_count; i++)
		if (!strcmp(lab.segments[i].name, name))
			*segment = &lab.segments[i];
	for (int i = 0; dot && i < lab.node_count; i++) {
		struct node *node = &lab.nodes[i];

		if (strlen(node->name) == (size_t)(dot - name) && !strncmp(node->name, name, (size_t)(dot - name))
		    && parse_number(dot + 1, &number) && number < (uint64_t)node->nic_count)
			*nic = &node->nics[number];
	}
	return *nic || *segment;
}

/* --- to a node */

static int receive(struct device *nic, const struct frame *frame)
{
	static uint8_t bytes[NET_HEADER + MAX_FRAME] = { [10] = 1 };    /* one buffer each frame */
	uint32_t turns = 0;
	uint16_t head;
	int got = ring_take(nic, 0, &head, &turns);
	ssize_t written;

	if (got < 1)
		return got;
	memcpy(bytes + NET_HEADER, frame->bytes, (size_t)frame->length);
	written = ring_write(nic, 0, head, bytes, NET_HEADER + (size_t)frame->length);
	if (written < 0)
		return -1;
	return ring_give(nic, 0, head, (uint32_t)written) < 0 ? -1 : 1;
}

/* A frame arrives at a node. Without a buffer of the guest it is lost, as on any NIC. */
void frame_deliver(struct event *event)
{
	struct device *nic = event->device;
	int got = 0;

	if (nic->in_up && ring_ready(nic, 0))
		got = receive(nic, event->frame);
	frame_drop(event->frame);
	if (got < 0) {
		node_broken(nic->node, "NIC %d has a bad chain of buffers to receive", nic->number);
	} else if (!got) {
		nic->frames_lost++;
	} else {
		nic->frames_received++;
		device_call(nic, 0);
	}
}
