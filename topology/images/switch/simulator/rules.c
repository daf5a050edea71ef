/* What happens to frames at the switch: rules, exact to the frame, drawn from the seed.
 *
 * A frame passes the rules of its sender and of its segment when it arrives at the switch, and those of its receiver
 * before it leaves it, each in the order in which they were made. A rule that holds or delays a frame hands it on to
 * the rules behind it.
 */
#include "lab.h"

#include <stdlib.h>
#include <string.h>

#define MAX_RULES 256
#define OVERTAKEN_WITHIN 5000000000u    /* ns that a frame waits to be overtaken */
#define RATE_QUEUE 100000u              /* bytes that wait for a slow cable */

enum action { DROP, DELAY, DUPLICATE, REORDER, CORRUPT, RATE, INTERCEPT, COUNT, TELL, ACTIONS };

static const char *ACTION_NAMES[ACTIONS] = {
	"drop", "delay", "duplicate", "reorder", "corrupt", "rate", "intercept", "count", "tell"
};

struct rule {
	char id[MAX_NAME];
	uint32_t serial;
	struct device *nic;             /* its place: a NIC with directions, or a segment */
	struct segment *segment;
	bool in, out;
	enum action action;
	struct filter *filter;
	/* which of the matching frames */
	double chance;
	uint64_t every, first, skip;
	uint64_t began, on, off;        /* it acts and rests in turns; on 0: it always acts */
	/* parameters of the actions */
	uint64_t ns, jitter, copies, by, bits, from, bits_per_s, queue;
	bool keep_order;
	/* what it has seen */
	uint64_t random, matches, hits;
	uint64_t last, busy;            /* DELAY: when the last frame goes on; RATE: until when the cable is busy */
	struct event held;              /* REORDER: with a frame while it holds one */
	uint64_t left, held_number;
};

struct interception {
	uint64_t number;
	uint32_t rule;
	struct event event;
	struct interception *next;
};

static struct rule *rules[MAX_RULES];
static int rule_count;
static uint32_t serials;
static uint64_t frame_numbers, holds, copies_made;
static struct interception *intercepted;

/* --- making rules */

struct parameter {
	const char *name;
	size_t offset;
	uint64_t least, most;
	unsigned actions;               /* bits: who has it */
};

#define EVERY_ACTION ((1u << ACTIONS) - 1)
#define OF(action) (1u << (action))
#define FIELD(name) offsetof(struct rule, name)

static const struct parameter PARAMETERS[] = {
	{ "every", FIELD(every), 1, FOREVER, EVERY_ACTION },
	{ "first", FIELD(first), 1, FOREVER, EVERY_ACTION },
	{ "skip", FIELD(skip), 0, FOREVER, EVERY_ACTION },
	{ "on", FIELD(on), 1, 3600000000000u, EVERY_ACTION },
	{ "off", FIELD(off), 1, 3600000000000u, EVERY_ACTION },
	{ "ns", FIELD(ns), 1, 3600000000000u, OF(DELAY) | OF(REORDER) },
	{ "jitter", FIELD(jitter), 0, 3600000000000u, OF(DELAY) },
	{ "copies", FIELD(copies), 1, 100, OF(DUPLICATE) },
	{ "by", FIELD(by), 1, 1000, OF(REORDER) },
	{ "bits", FIELD(bits), 1, 1000, OF(CORRUPT) },
	{ "from", FIELD(from), 0, MAX_FRAME, OF(CORRUPT) },
	{ "bits_per_s", FIELD(bits_per_s), 1, 1000000000000u, OF(RATE) },
	{ "queue", FIELD(queue), 0, 1000000000, OF(RATE) },
};

static bool refuse(char sentence[MAX_SENTENCE], const char *format, const char *word)
{
	snprintf(sentence, MAX_SENTENCE, format, word);
	return false;
}

static bool set_chance(struct rule *rule, const char *text)
{
	char *end;

	rule->chance = strtod(text, &end);
	return *text && !*end && rule->chance >= 0 && rule->chance <= 1;
}

/* NAME=VALUE */
static bool set_parameter(struct rule *rule, char *word, char sentence[MAX_SENTENCE])
{
	char *value = strchr(word, '=');

	if (!value)
		return refuse(sentence, "%.60s is not NAME=VALUE", word);
	*value++ = 0;
	if (!strcmp(word, "p"))
		return set_chance(rule, value) || refuse(sentence, "p is between 0 and 1, not %.60s", value);
	if (!strcmp(word, "order") && rule->action == DELAY) {
		rule->keep_order = !strcmp(value, "keep");
		return rule->keep_order || !strcmp(value, "change") || refuse(sentence, "order is keep or change, not %.60s", value);
	}
	for (size_t i = 0; i < sizeof PARAMETERS / sizeof *PARAMETERS; i++) {
		const struct parameter *each = &PARAMETERS[i];
		uint64_t number;

		if (strcmp(each->name, word) || !(each->actions & OF(rule->action)))
			continue;
		if (!parse_number(value, &number) || number < each->least || number > each->most)
			return refuse(sentence, "%.60s is out of its range", word);
		memcpy((char *)rule + each->offset, &number, sizeof number);
		return true;
	}
	return refuse(sentence, "this action has no parameter %.60s", word);
}

static bool set_action(struct rule *rule, const char *word, char sentence[MAX_SENTENCE])
{
	for (int i = 0; i < ACTIONS; i++)
		if (!strcmp(ACTION_NAMES[i], word)) {
			rule->action = (enum action)i;
			return true;
		}
	return refuse(sentence, "there is no action %.60s", word);
}

static bool set_place(struct rule *rule, const char *place, const char *direction, char sentence[MAX_SENTENCE])
{
	bool both = !strcmp(direction, "both");

	if (!place_find(place, &rule->nic, &rule->segment))
		return refuse(sentence, "there is no place %.60s", place);
	rule->in = both || !strcmp(direction, "in");
	rule->out = both || !strcmp(direction, "out");
	if (!rule->in && !rule->out)
		return refuse(sentence, "a direction is in, out or both, not %.60s", direction);
	if (rule->segment && !both)
		return refuse(sentence, "the direction on a segment is both, not %.60s", direction);
	return true;
}

static struct rule *find(const char *id)
{
	for (int i = 0; i < rule_count; i++)
		if (!strcmp(rules[i]->id, id))
			return rules[i];
	return NULL;
}

static bool complete(struct rule *rule, char sentence[MAX_SENTENCE])
{
	if (rule->action == DELAY && !rule->ns && !rule->jitter)
		return refuse(sentence, "%s takes ns= or jitter=", "delay");
	if (rule->action == RATE && !rule->bits_per_s)
		return refuse(sentence, "%s takes bits_per_s=", "rate");
	if (!rule->on != !rule->off)
		return refuse(sentence, "%s goes with the other one", rule->on ? "on=" : "off=");
	return true;
}

/* ID PLACE DIRECTION ACTION PARAM=VALUE ... with a filter; false: the sentence says why not. */
bool rule_make(char **words, int count, const char *filter, char sentence[MAX_SENTENCE])
{
	struct rule *rule;

	if (rule_count == MAX_RULES)
		return refuse(sentence, "%s: there are too many rules", words[0]);
	if (strlen(words[0]) >= MAX_NAME || find(words[0]))
		return refuse(sentence, "%.60s is no name for a rule, or taken", words[0]);
	rule = must_allocate(sizeof *rule);
	*rule = (struct rule){ .chance = 1, .every = 1, .copies = 1, .by = 1, .bits = 1, .from = 14, .queue = RATE_QUEUE };
	snprintf(rule->id, sizeof rule->id, "%s", words[0]);
	rule->random = XXH3_64bits_withSeed(rule->id, strlen(rule->id), lab.seed);
	if (!set_place(rule, words[1], words[2], sentence) || !set_action(rule, words[3], sentence))
		goto bad;
	for (int i = 4; i < count; i++)
		if (!set_parameter(rule, words[i], sentence))
			goto bad;
	if (!complete(rule, sentence) || !(rule->filter = filter_make(filter, sentence)))
		goto bad;
	rule->serial = ++serials;
	rule->began = lab.now;
	rules[rule_count++] = rule;
	return true;
bad:
	free(rule);
	return false;
}

/* --- what they do; each gives true where the frame goes on now */

/* The frame goes on behind this rule at this time. */
static void go_on(const struct rule *rule, struct event event, uint64_t at)
{
	event.at = at;
	event.rule = rule->serial + 1;
	event_push(event);
}

static double chance(struct rule *rule)
{
	return (double)(draw(&rule->random) >> 11) * 0x1p-53;
}

static bool selected(struct rule *rule)
{
	uint64_t number = rule->matches++;

	if (rule->on && (lab.now - rule->began) % (rule->on + rule->off) >= rule->on)
		return false;
	if (number < rule->skip || (number - rule->skip) % rule->every)
		return false;
	if (rule->first && rule->hits >= rule->first)
		return false;
	if (rule->chance < 1 && chance(rule) >= rule->chance)
		return false;
	rule->hits++;
	return true;
}

static bool delay(struct rule *rule, struct event *event)
{
	uint64_t spread = rule->jitter ? draw(&rule->random) % (2 * rule->jitter + 1) : 0;
	uint64_t sum = rule->ns + spread, at = lab.now + (sum > rule->jitter ? sum - rule->jitter : 0);

	if (rule->keep_order && at < rule->last)
		at = rule->last;
	rule->last = at;
	go_on(rule, *event, at);
	return false;
}

static bool duplicate(const struct rule *rule, const struct event *event)
{
	for (uint64_t i = 0; i < rule->copies; i++) {
		struct event copy = *event;

		copy.order.copy = (uint32_t)++copies_made;
		frame_share(copy.frame);
		go_on(rule, copy, lab.now);
	}
	return true;
}

static void release(struct rule *rule)
{
	go_on(rule, rule->held, lab.now);
	rule->held.frame = NULL;
}

static bool hold(struct rule *rule, const struct event *event)
{
	struct event timer = *event;

	rule->held = *event;
	rule->left = rule->by;
	rule->held_number = ++holds;
	timer.kind = TIMER;
	timer.at = lab.now + (rule->ns ? rule->ns : OVERTAKEN_WITHIN);
	timer.frame = NULL;
	timer.rule = rule->serial;
	timer.order.number = rule->held_number;
	event_push(timer);
	return false;
}

/* Nobody has overtaken a frame. */
void rule_timer(const struct event *event)
{
	for (int i = 0; i < rule_count; i++)
		if (rules[i]->serial == event->rule && rules[i]->held.frame && rules[i]->held_number == event->order.number)
			release(rules[i]);
}

static bool corrupt(struct rule *rule, struct event *event)
{
	struct frame *spoilt;
	uint64_t from = rule->from, length = (uint64_t)event->frame->length;

	if (from >= length)
		return true;
	spoilt = frame_make(event->frame->bytes, length);
	frame_drop(event->frame);
	event->frame = spoilt;
	for (uint64_t i = 0; i < rule->bits; i++) {
		uint64_t bit = draw(&rule->random) % (8 * (length - from));

		spoilt->bytes[from + bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	return true;
}

static bool slow(struct rule *rule, struct event *event)
{
	uint64_t start = rule->busy > lab.now ? rule->busy : lab.now;
	uint64_t waiting = (uint64_t)((double)(start - lab.now) * (double)rule->bits_per_s / 8e9);

	if (waiting > rule->queue) {
		frame_drop(event->frame);
		return false;
	}
	rule->busy = start + 8000000000u * (uint64_t)event->frame->length / rule->bits_per_s;
	go_on(rule, *event, rule->busy);
	return false;
}

static void tell(const struct rule *rule, uint64_t number, const struct event *event)
{
	char prefix[3 * MAX_NAME + 80];

	snprintf(prefix, sizeof prefix, "+frame %s %llu %llu %s.%d/%s ", rule->id, (unsigned long long)number,
		 (unsigned long long)lab.now, event->device->node->name, event->device->number,
		 event->kind == AT_SWITCH ? "out" : "in");
	control_tell_bytes(prefix, event->frame->bytes, (size_t)event->frame->length);
}

static bool intercept(const struct rule *rule, const struct event *event)
{
	struct interception *each = must_allocate(sizeof *each), **end = &intercepted;

	*each = (struct interception){ ++frame_numbers, rule->serial, *event, NULL };
	while (*end)
		end = &(*end)->next;
	*end = each;
	tell(rule, each->number, event);
	if (!lab.reason[0])
		snprintf(lab.reason, sizeof lab.reason, "rule %s", rule->id);
	return false;
}

static bool act(struct rule *rule, struct event *event)
{
	switch (rule->action) {
	case DELAY:
		return delay(rule, event);
	case DUPLICATE:
		return duplicate(rule, event);
	case REORDER:
		return hold(rule, event);
	case CORRUPT:
		return corrupt(rule, event);
	case RATE:
		return slow(rule, event);
	case INTERCEPT:
		return intercept(rule, event);
	case TELL:
		tell(rule, ++frame_numbers, event);
		return true;
	default:
		return true;
	}
}

static bool concerns(const struct rule *rule, const struct event *event)
{
	if (rule->serial < event->rule)
		return false;
	if (event->kind == AT_SWITCH)
		return rule->segment ? rule->segment == event->device->segment : rule->out && rule->nic == event->device;
	return rule->in && rule->nic == event->device;
}

/* Put a frame through the rules; false: it does not go on now, and is no longer the caller's.
 *
 * A frame that one rule drops passes the other rules that drop, too: each counts all its frames, whatever others do.
 */
bool rules_pass(struct event *event)
{
	bool dropped = false;

	for (int i = 0; i < rule_count; i++) {
		struct rule *rule = rules[i];

		if (dropped && rule->action != DROP)
			continue;
		if (!concerns(rule, event) || !filter_takes(rule->filter, event->frame))
			continue;
		if (rule->held.frame) {         /* this one overtakes the one that is held */
			rule->matches++;
			if (!--rule->left)
				release(rule);
		} else if (selected(rule)) {
			if (rule->action == DROP)
				dropped = true;
			else if (!act(rule, event))
				return false;
		}
	}
	if (dropped)
		frame_drop(event->frame);
	return !dropped;
}

/* --- verdicts */

static struct rule *rule_of(const struct interception *each)
{
	static struct rule gone;

	for (int i = 0; i < rule_count; i++)
		if (rules[i]->serial == each->rule)
			return rules[i];
	gone.serial = each->rule;
	return &gone;
}

/* What becomes of an intercepted frame: it goes on at `at` (FOREVER: never), instead of it `other`, or both. */
bool rule_verdict(uint64_t number, uint64_t at, struct frame *other, bool both)
{
	struct interception **link = &intercepted, *each;

	while (*link && (*link)->number != number)
		link = &(*link)->next;
	if (!*link)
		return false;
	each = *link;
	*link = each->next;
	if (at < FOREVER && (!other || both)) {
		frame_share(each->event.frame);
		go_on(rule_of(each), each->event, at);
	}
	frame_drop(each->event.frame);
	if (other) {
		each->event.frame = other;
		each->event.order.copy = (uint32_t)++copies_made;
		go_on(rule_of(each), each->event, at);
	}
	free(each);
	return true;
}

/* Remove a rule; what it holds goes on. False: there is none. */
bool rule_remove(const char *id, uint64_t *hits)
{
	struct rule *rule = find(id);
	int at = 0;

	if (!rule)
		return false;
	*hits = rule->hits;
	if (rule->held.frame)
		release(rule);
	for (struct interception *each = intercepted, *next; each; each = next) {
		next = each->next;
		if (each->rule == rule->serial)
			rule_verdict(each->number, lab.now, NULL, false);
	}
	while (rules[at] != rule)
		at++;
	memmove(&rules[at], &rules[at + 1], (size_t)(--rule_count - at) * sizeof *rules);
	filter_free(rule->filter);
	free(rule);
	return true;
}

/* The number with which a frame goes on behind a rule; 0: there is no such rule. */
uint32_t rule_behind(const char *id)
{
	struct rule *rule = find(id);

	return rule ? rule->serial + 1 : 0;
}

/* Tell the client of all rules. */
void rules_tell(void)
{
	for (int i = 0; i < rule_count; i++)
		control_tell("+changed rule %s", rules[i]->id);
}

uint64_t rule_hits(const char *id, uint64_t *matches)
{
	struct rule *rule = find(id);

	*matches = rule ? rule->matches : 0;
	return rule ? rule->hits : FOREVER;
}
