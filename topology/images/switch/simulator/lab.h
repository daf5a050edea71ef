/* The state of a simulated lab, and what the parts of the simulator offer each other.
 *
 * One process, one thread. It hands out virtual time: nodes run while nothing can reach them, several at once, and
 * everything between nodes happens here while they stand. It has one order: that of virtual time, and at one instant
 * that of `struct order`. Real time decides nothing.
 *
 * All times are virtual, in ns since the lab's start, unless a name ends in _real_ms.
 */
#ifndef LAB_H
#define LAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#define MAX_NODES 64
#define MAX_NICS 8
#define MAX_SEGMENTS 32
#define MAX_NAME 64
#define MAX_REGIONS 8           /* of a guest's memory; vhost-user allows no more in one message */
#define MAX_QUEUES 2            /* of a device: ring 0 goes to the guest, ring 1 comes from it */
#define MAX_RING 1024           /* entries of a virtqueue */
#define MAX_FRAME 65550         /* bytes of a frame */
#define MAX_SENTENCE 300
#define FOREVER ((uint64_t)INT64_MAX)

/* --- where bytes come from */

enum source_kind {
	FROM_CONTROL_LISTENER, FROM_CONTROL, FROM_CALENDAR_LISTENER, FROM_NEWCOMER, FROM_CALENDAR, FROM_DEVICE_LISTENER,
	FROM_DEVICE
};

/* What epoll gives back for a file descriptor. */
struct source {
	enum source_kind kind;
	int fd;                 /* -1: none */
	void *owner;
};

/* --- frames and events */

struct frame {
	int uses, length;
	uint8_t bytes[];
};

/* The order of events at one instant: it follows from who sent what, never from the order in which nodes ran. */
struct order {
	uint32_t rank;          /* of the kind of event */
	uint32_t to, from;      /* devices */
	uint64_t number;        /* of the frame at its sender */
	uint32_t copy;
};

enum event_kind {
	RESUME, SENT, DELIVER, INPUT,
	AT_SWITCH,              /* a frame has come to the switch from `device` */
	AT_PORT,                /* a frame leaves the switch towards `device` */
	TIMER                   /* of a rule */
};

struct event {
	uint64_t at;
	struct order order;
	enum event_kind kind;
	struct device *device;  /* the one it happens to */
	uint32_t generation;    /* of the device's node: an event of an earlier life of a node is void */
	struct frame *frame;
	uint16_t head;          /* the buffers that the guest gets back: SENT, and at the switch if it `gives_back` */
	bool gives_back;
	uint32_t rule;          /* at the switch: the first rule that it has not passed yet */
};

/* --- guests */

struct region {
	uint64_t guest, user, size;     /* the address as descriptors have it, as rings have it, and the length in bytes */
	uint8_t *at;
	void *mapped;
	size_t mapped_size;
};

struct memory {
	struct region regions[MAX_REGIONS];
	int count;
	volatile bool lost;     /* the guest took a part of it away */
};

struct ring {
	uint32_t size;
	uint64_t descriptors, available, used;  /* user addresses */
	uint16_t next;          /* the entry of the available ring that is read next */
	bool enabled, known;
};

enum device_kind { NIC, SERIAL };

struct message_in {             /* a vhost-user message that arrives */
	uint8_t bytes[12 + 512];
	size_t got;
	int fds[MAX_REGIONS], fd_count;
};

struct device {
	enum device_kind kind;
	struct node *node;
	uint32_t id;            /* over all devices of the lab */
	int number;             /* of the NIC */
	struct source listener, connection;
	int calls;              /* socket of requests to the guest (interrupts); -1: none */
	uint64_t protocol;      /* vhost-user protocol features that the guest took */
	struct message_in in;
	struct memory memory;
	struct ring rings[MAX_QUEUES];
	/* NIC */
	struct segment *segment;
	uint8_t mac[6];
	bool in_up, out_up;     /* its cable: towards the node, and from it */
	uint64_t sending_until, receiving_until;        /* the cable is busy until then */
	uint64_t frames_sent, frames_received, frames_lost;
	uint32_t kept;          /* frames that wait for its node to thaw */
	/* serial line: bytes that wait for buffers of the guest */
	uint8_t *input;
	size_t input_size, input_room;
	uint64_t inputs;
};

enum node_state {
	OFF,                    /* no kernel is connected */
	RUNNING,                /* its kernel runs: it boots, or it has been granted time */
	WAITING,                /* it stands, and wants to run at `request` */
	HELD                    /* it stands within a write to its console, at `held_at` */
};

struct calendar_memory;

struct node {
	char name[MAX_NAME];
	uint32_t id;
	enum node_state state;
	bool frozen, wakes, ended;      /* ended: its kernel closed its connection and nobody has been told */
	bool ready;             /* it stood idle once since its kernel connected */
	uint32_t generation;
	struct source calendar;
	struct calendar_memory *shared;
	int shared_fd;
	uint8_t partial[16];    /* of a message to the calendar */
	size_t partial_size;
	uint64_t offset;        /* virtual time of the lab at which its kernel's own clock was 0 */
	uint64_t request;       /* FOREVER: none */
	uint64_t began, limit;  /* when it was granted time, and until when */
	uint64_t event_horizon; /* no event can reach it before */
	uint64_t ended_at;
	uint64_t held_at;
	struct event **kept;    /* events that wait for it to thaw */
	size_t kept_count, kept_room;
	struct device nics[MAX_NICS];
	int nic_count;
	struct device serial;
	XXH3_state_t *hash;     /* of all it sent: frames and console bytes */
	uint64_t frames, grants;
};

struct address_entry {
	uint8_t mac[6];
	struct device *device;
};

struct segment {
	char name[MAX_NAME];
	uint64_t latency, bits_per_s;
	struct address_entry table[256];
	int table_size;
};

struct lab {
	char folder[80];
	struct segment segments[MAX_SEGMENTS];
	int segment_count;
	struct node nodes[MAX_NODES];
	int node_count;
	uint32_t device_count;
	uint64_t now, start_tod, seed;
	uint64_t lookahead;     /* nothing that a node does reaches another one sooner */
	uint64_t until;         /* the end of this run */
	uint64_t calls, messages, injected;
	char reason[MAX_NAME + 32];     /* why this run ends; "": it goes on */
	bool wake_for_lines;    /* only a write with the end of a line ends a run */
	bool stop;              /* the client hung up */
	int epoll;
	struct source calendar_listener, control_listener, control;
	uint32_t spin_real_ms;
};

extern struct lab lab;

/* --- base.c: small things */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void *must_allocate(size_t size);
void *must_grow(void *old, size_t size);
uint64_t real_ms(void);
uint64_t draw(uint64_t *state);
size_t base64_size(size_t length);
size_t base64_encode(const uint8_t *bytes, size_t length, char *text);
ssize_t base64_decode(const char *text, uint8_t *bytes);
bool parse_number(const char *text, uint64_t *value);
struct frame *frame_make(const uint8_t *bytes, size_t length);
struct frame *frame_share(struct frame *frame);
void frame_drop(struct frame *frame);

/* --- events.c: what will happen, in order */
bool event_before(const struct event *a, const struct event *b);
void event_push(struct event event);
struct event *event_first(void);
struct event event_pop(void);
size_t event_count(void);
void event_horizons(void);
void event_forget(const struct node *node);

/* --- sockets.c */
int listen_at(const char *name);
void watch(struct source *source, enum source_kind kind, int fd, void *owner);
void watch_bytes(struct source *source, bool bytes);
void unwatch(struct source *source);
void serve(int timeout_real_ms);

/* --- rings.c: a guest's memory; all of it is checked, -1 is garbage */
uint8_t *guest_at(const struct memory *memory, uint64_t address, uint64_t length);
bool memory_map(struct memory *memory, const struct region *wanted, const uint64_t *offsets, const int *fds, int count);
void memory_unmap(struct memory *memory);
bool ring_ready(const struct device *device, int ring);
int ring_take(struct device *device, int ring, uint16_t *head, uint32_t *turns);
ssize_t ring_read(struct device *device, int ring, uint16_t head, uint8_t *bytes, size_t room);
ssize_t ring_write(struct device *device, int ring, uint16_t head, const uint8_t *bytes, size_t length);
int ring_give(struct device *device, int ring, uint16_t head, uint32_t length);
int ring_wants_call(struct device *device, int ring);
void guard_guest_memory(void);

/* --- vhost.c: devices of guests */
void device_init(struct device *device, enum device_kind kind, struct node *node, int number);
void device_connect(struct device *device);
void device_readable(struct device *device);
void device_close(struct device *device);
void device_acknowledge(struct device *device, uint32_t request, uint64_t value);
bool device_call(struct device *device, int ring);

/* --- calendar.c: kernels and their time */
struct node *node_add(const char *name);
struct node *node_find(const char *name);
void node_off(struct node *node);
void node_broken(struct node *node, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t node_clock(const struct node *node);
uint64_t node_reachable_at(const struct node *node);
void node_shorten(struct node *node);
void node_stop_at(struct node *node, uint64_t limit);
void node_set_time(struct node *node);
void node_read_request(struct node *node);
void calendar_connect(void);
void newcomer_readable(struct source *source);
void calendar_readable(struct node *node);
void run_until(uint64_t until);
void freeze(struct node *node);
void thaw(struct node *node);
bool await_node(const struct node *node, uint64_t limit_real_ms);

/* --- network.c */
void nic_kicked(struct device *nic);
void frame_sent(struct event *event);
void frame_at_switch(struct event *event);
void frame_at_port(struct event *event);
void frame_inject(struct device *nic, bool to_node, uint64_t at, uint32_t behind, struct frame *frame);
bool place_find(const char *name, struct device **nic, struct segment **segment);
void frame_deliver(struct event *event);

/* --- filter.c, rules.c, capture.c */
struct filter *filter_make(const char *text, char sentence[MAX_SENTENCE]);
bool filter_takes(const struct filter *filter, const struct frame *frame);
void filter_free(struct filter *filter);
bool rule_make(char **words, int count, const char *filter, char sentence[MAX_SENTENCE]);
bool rules_pass(struct event *event);
void rule_timer(const struct event *event);
bool rule_verdict(uint64_t number, uint64_t at, struct frame *other, bool both);
bool rule_remove(const char *id, uint64_t *hits);
uint64_t rule_hits(const char *id, uint64_t *matches);
uint32_t rule_behind(const char *id);
void rules_tell(void);
bool capture_begin(const char *id, const char *path, char *places, const char *filter, char sentence[MAX_SENTENCE]);
void capture_cable(const struct device *nic, const struct frame *frame, bool to_node);
void capture_segment(const struct segment *segment, const struct frame *frame);
void capture_flush(void);
uint64_t capture_end(const char *id);

/* --- serial.c */
bool serial_kicked(struct device *serial, uint32_t ring, bool acknowledge);
void serial_resume(struct node *node);
void serial_say(struct node *node, const uint8_t *bytes, size_t length);
void serial_input(struct device *serial);

/* --- trace.c: what two runs have in common */
void trace_reset(struct node *node);
void trace_frame(const struct device *nic, uint64_t at, const struct frame *frame);
void trace_bytes(const struct device *serial, uint64_t at, const uint8_t *bytes, size_t length);
void trace_hash(char text[33]);
void trace_open(void);
void trace_flush(void);

/* --- control.c, requests.c */
void request_execute(char *line);
void control_connect(void);
void control_readable(void);
void control_work(void);
void control_close(void);
void control_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
void control_tell_bytes(const char *prefix, const uint8_t *bytes, size_t length);

#endif
