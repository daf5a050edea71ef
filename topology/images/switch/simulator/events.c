/* What will happen: a heap, ordered by time and then by who sent what. */
#include "lab.h"

#include <stdlib.h>

static struct event *heap;
static size_t count, room;

static int compare(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

bool event_before(const struct event *a, const struct event *b)
{
	int result = compare(a->at, b->at);

	if (!result)
		result = compare(a->order.rank, b->order.rank);
	if (!result)
		result = compare(a->order.to, b->order.to);
	if (!result)
		result = compare(a->order.from, b->order.from);
	if (!result)
		result = compare(a->order.number, b->order.number);
	return (result ? result : compare(a->order.copy, b->order.copy)) < 0;
}

static void exchange(size_t a, size_t b)
{
	struct event kept = heap[a];

	heap[a] = heap[b];
	heap[b] = kept;
}

static void rise(size_t at)
{
	while (at && event_before(&heap[at], &heap[(at - 1) / 2])) {
		exchange(at, (at - 1) / 2);
		at = (at - 1) / 2;
	}
}

static void sink(size_t at)
{
	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= count)
			return;
		if (child + 1 < count && event_before(&heap[child + 1], &heap[child]))
			child++;
		if (!event_before(&heap[child], &heap[at]))
			return;
		exchange(child, at);
		at = child;
	}
}

void event_push(struct event event)
{
	if (count == room) {
		room = room ? 2 * room : 256;
		heap = must_grow(heap, room * sizeof *heap);
	}
	event.order.rank = (uint32_t)event.kind;
	heap[count] = event;
	rise(count++);
}

struct event *event_first(void)
{
	return count ? heap : NULL;
}

struct event event_pop(void)
{
	struct event first = heap[0];

	heap[0] = heap[--count];
	sink(0);
	return first;
}

size_t event_count(void)
{
	return count;
}

/* It happens in the switch, not to a node. */
static bool in_switch(const struct event *event)
{
	return event->kind >= AT_SWITCH;
}

/* Until when no event can reach each node: one of its own as it is due, one of others a lookahead later. */
void event_horizons(void)
{
	uint64_t others = count ? heap[0].at + lab.lookahead : FOREVER;

	for (int i = 0; i < lab.node_count; i++)
		lab.nodes[i].event_horizon = others;
	for (size_t i = 0; i < count; i++) {
		struct node *node = heap[i].device->node;

		if (!in_switch(&heap[i]) && heap[i].at < node->event_horizon)
			node->event_horizon = heap[i].at;
	}
}

/* Drop all that would happen to a node; what it sent goes on its way, and rules keep their timers. */
void event_forget(const struct node *node)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		if (heap[i].kind != AT_SWITCH && heap[i].kind != TIMER && heap[i].device->node == node)
			frame_drop(heap[i].frame);
		else
			heap[kept++] = heap[i];
	}
	count = kept;
	for (size_t i = count / 2; i-- > 0;)
		sink(i);
}
