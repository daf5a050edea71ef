/* The requests of the client, each with one answer (docs/virtual-time.md has the list). */
#include "lab.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WORDS 64
#define MAX_INPUT (16u << 20)   /* bytes that wait for a guest's console */

struct words {
	char *word[MAX_WORDS];
	int count;
	const char *rest;       /* what follows " -- ", or NULL */
};

static bool error(const char *format, ...) __attribute__((format(printf, 1, 2)));
static bool error(const char *format, ...)
{
	char sentence[MAX_SENTENCE];
	va_list words;

	va_start(words, format);
	vsnprintf(sentence, sizeof sentence, format, words);
	va_end(words);
	control_tell("error %s", sentence);
	return false;
}

static bool number(const char *text, uint64_t *value, const char *what)
{
	return parse_number(text, value) || error("%s is not a whole number", what);
}

static bool good_name(const char *name)
{
	size_t length = strlen(name);

	return length && length <= 40 && strlen(lab.folder) + length + 10 < 108
		&& strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == length;
}

static struct node *find_node(const char *name)
{
	struct node *node = node_find(name);

	if (!node)
		error("there is no node %s", name ? name : "without a name");
	return node;
}

static struct segment *find_segment(const char *name)
{
	for (int i = 0; i < lab.segment_count; i++)
		if (!strcmp(lab.segments[i].name, name))
			return &lab.segments[i];
	return NULL;
}

static bool do_segment(struct words *words)
{
	struct segment *segment = &lab.segments[lab.segment_count];
	uint64_t latency, speed;

	if (lab.segment_count == MAX_SEGMENTS)
		return error("there can be %d segments at most", MAX_SEGMENTS);
	if (!good_name(words->word[1]) || find_segment(words->word[1]))
		return error("%s is no name for a segment, or taken", words->word[1]);
	if (!number(words->word[2], &latency, "the latency") || !number(words->word[3], &speed, "the speed"))
		return false;
	if (!latency || latency > 60000000000u)
		return error("a latency is between 1 ns and 60 s");
	snprintf(segment->name, sizeof segment->name, "%s", words->word[1]);
	segment->latency = latency;
	segment->bits_per_s = speed;
	lab.segment_count++;
	if (latency < lab.lookahead)
		lab.lookahead = latency;
	return true;
}

/* SEGMENT/MAC */
static bool parse_nic(char *word, struct segment **segment, uint8_t *mac)
{
	char *slash = strchr(word, '/'), end;
	unsigned part[6];

	if (!slash || sscanf(slash + 1, "%2x:%2x:%2x:%2x:%2x:%2x%c", &part[0], &part[1], &part[2], &part[3], &part[4],
			     &part[5], &end) != 6)
		return error("a NIC is SEGMENT/MAC");
	*slash = 0;
	*segment = find_segment(word);
	for (int i = 0; i < 6; i++)
		mac[i] = (uint8_t)part[i];
	return *segment || error("there is no segment %s", word);
}

static bool do_node(struct words *words)
{
	struct segment *segments[MAX_NICS];
	uint8_t macs[MAX_NICS][6];
	struct node *node;
	int count = words->count - 2;

	if (lab.node_count == MAX_NODES)
		return error("there can be %d nodes at most", MAX_NODES);
	if (!good_name(words->word[1]) || node_find(words->word[1]))
		return error("%s is no name for a node, or taken", words->word[1]);
	if (count > MAX_NICS)
		return error("a node can have %d NICs at most", MAX_NICS);
	for (int i = 0; i < count; i++)
		if (!parse_nic(words->word[i + 2], &segments[i], macs[i]))
			return false;
	node = node_add(words->word[1]);
	for (int i = 0; i < count; i++) {
		struct device *nic = &node->nics[node->nic_count++];

		device_init(nic, NIC, node, i);
		nic->segment = segments[i];
		memcpy(nic->mac, macs[i], 6);
	}
	control_tell("ok %u", node->id);
	return false;
}

static bool do_start(struct words *words)
{
	return number(words->word[1], &lab.start_tod, "the time");
}

static bool do_seed(struct words *words)
{
	return number(words->word[1], &lab.seed, "the seed");
}

static bool do_spin(struct words *words)
{
	uint64_t limit;

	if (!number(words->word[1], &limit, "the limit"))
		return false;
	if (!limit || limit > 3600000)
		return error("the limit is between 1 ms and 1 h");
	lab.spin_real_ms = (uint32_t)limit;
	return true;
}

static bool do_wakes(struct words *words)
{
	bool lines = !strcmp(words->word[1], "lines");

	if (!lines && strcmp(words->word[1], "writes"))
		return error("a run ends for writes or for lines");
	lab.wake_for_lines = lines;
	return true;
}

static bool do_await(struct words *words)
{
	struct node *node = find_node(words->word[1]);
	uint64_t limit;

	if (!node || !number(words->word[2], &limit, "the limit"))
		return false;
	if (await_node(node, limit))
		return true;
	if (lab.stop)
		return false;
	return error("the kernel of %s %s", node->name, node->calendar.fd < 0 ? (node->ended ? "ended" : "did not connect")
		     : "does not stand still");
}

static bool set_wakes(struct words *words)
{
	for (int i = 0; i < lab.node_count; i++)
		lab.nodes[i].wakes = false;
	for (int i = 2; i < words->count; i++) {
		bool all = !strcmp(words->word[i], "*");
		struct node *one = all ? NULL : find_node(words->word[i]);

		if (!all && !one)
			return false;
		for (int k = 0; k < lab.node_count; k++)
			lab.nodes[k].wakes |= all || one == &lab.nodes[k];
	}
	return true;
}

static bool do_run(struct words *words)
{
	uint64_t until;

	if (!number(words->word[1], &until, "the time") || !set_wakes(words))
		return false;
	if (until < lab.now)
		return error("it is %llu already", (unsigned long long)lab.now);
	run_until(until);
	if (!lab.stop)
		control_tell("ok %llu %s", (unsigned long long)lab.now, lab.reason);
	return false;
}

static bool do_say(struct words *words)
{
	struct node *node = find_node(words->word[1]);
	uint8_t *bytes;
	ssize_t length;

	if (!node)
		return false;
	if (node->state == OFF || node->ended)
		return error("%s is off", node->name);
	bytes = must_allocate(strlen(words->word[2]) + 1);
	length = base64_decode(words->word[2], bytes);
	if (length > 0 && node->serial.input_size + (size_t)length <= MAX_INPUT)
		serial_say(node, bytes, (size_t)length);
	else
		length = length < 1 ? error("this is not base64") : error("%s reads too little of its console", node->name);
	free(bytes);
	return length > 0;
}

static bool do_gone(struct words *words)
{
	struct node *node = find_node(words->word[1]);

	if (node)
		node_off(node);
	return node;
}

static bool do_freeze(struct words *words)
{
	struct node *node = find_node(words->word[1]);

	if (node && node->state == OFF)
		return error("%s is off", node->name);
	if (node)
		freeze(node);
	return node;
}

static bool do_thaw(struct words *words)
{
	struct node *node = find_node(words->word[1]);

	if (node)
		thaw(node);
	return node;
}

/* cable NODE NIC [in|out|both] up|down */
static bool do_cable(struct words *words)
{
	struct node *node = find_node(words->word[1]);
	const char *way = words->count == 5 ? words->word[3] : "both", *state = words->word[words->count - 1];
	bool in = !strcmp(way, "in") || !strcmp(way, "both"), leaves = !strcmp(way, "out") || !strcmp(way, "both");
	bool up = !strcmp(state, "up");
	uint64_t nic;

	if (!node || !number(words->word[2], &nic, "the NIC"))
		return false;
	if (nic >= (uint64_t)node->nic_count)
		return error("%s has %d NICs", node->name, node->nic_count);
	if ((!in && !leaves) || (!up && strcmp(state, "down")))
		return error("a cable is up or down, in, out or both");
	if (in)
		node->nics[nic].in_up = up;
	if (leaves)
		node->nics[nic].out_up = up;
	return true;
}

static bool do_rule(struct words *words)
{
	char sentence[MAX_SENTENCE];

	return rule_make(words->word + 1, words->count - 1, words->rest, sentence) || error("%s", sentence);
}

static bool do_unrule(struct words *words)
{
	uint64_t hits;

	if (!rule_remove(words->word[1], &hits))
		return error("there is no rule %s", words->word[1]);
	control_tell("ok %llu", (unsigned long long)hits);
	return false;
}

static bool do_hits(struct words *words)
{
	uint64_t matches, hits = rule_hits(words->word[1], &matches);

	if (hits == FOREVER)
		return error("there is no rule %s", words->word[1]);
	control_tell("ok %llu %llu", (unsigned long long)hits, (unsigned long long)matches);
	return false;
}

static struct frame *parse_frame(const char *text)
{
	uint8_t *bytes = must_allocate(strlen(text) + 1);
	ssize_t length = base64_decode(text, bytes);
	struct frame *frame = length >= 14 && length < MAX_FRAME ? frame_make(bytes, (size_t)length) : NULL;

	free(bytes);
	if (!frame)
		error("this is not a frame in base64");
	return frame;
}

/* verdict NUMBER pass|drop|delay NS|replace BASE64|also BASE64 */
static bool do_verdict(struct words *words)
{
	const char *verb = words->word[2], *value = words->count == 4 ? words->word[3] : NULL;
	bool also = !strcmp(verb, "also"), replace = !strcmp(verb, "replace"), late = !strcmp(verb, "delay");
	uint64_t number_of_frame, ns = 0, at = lab.now;
	struct frame *other = NULL;

	if (!number(words->word[1], &number_of_frame, "the number of the frame"))
		return false;
	if ((also || replace || late) != !!value || (!value && strcmp(verb, "pass") && strcmp(verb, "drop")))
		return error("a verdict is pass, drop, delay NS, replace BASE64 or also BASE64");
	if (late && (!number(value, &ns, "the delay") || ns > FOREVER / 4))
		return false;
	if ((also || replace) && !(other = parse_frame(value)))
		return false;
	if (!strcmp(verb, "drop"))
		at = FOREVER;
	if (rule_verdict(number_of_frame, at == FOREVER ? at : at + ns, other, also))
		return true;
	frame_drop(other);
	return error("no frame %llu is held", (unsigned long long)number_of_frame);
}

/* inject NODE.NIC in|out AT_NS BASE64 [RULE] */
static bool do_inject(struct words *words)
{
	uint32_t behind = words->count == 6 ? rule_behind(words->word[5]) : 0;
	bool in = !strcmp(words->word[2], "in");
	struct segment *segment;
	struct device *nic;
	struct frame *frame;
	uint64_t at;

	if (!place_find(words->word[1], &nic, &segment) || !nic)
		return error("there is no NIC %s", words->word[1]);
	if (!in && strcmp(words->word[2], "out"))
		return error("a direction is in or out");
	if (!number(words->word[3], &at, "the time"))
		return false;
	if (at < lab.now)
		return error("it is %llu already", (unsigned long long)lab.now);
	if (words->count == 6 && !behind)
		return error("there is no rule %s", words->word[5]);
	frame = parse_frame(words->word[4]);
	if (!frame)
		return false;
	frame_inject(nic, in, at, behind, frame);
	frame_drop(frame);
	return true;
}

static bool do_capture(struct words *words)
{
	char sentence[MAX_SENTENCE];

	return capture_begin(words->word[1], words->word[2], words->word[3], words->rest, sentence)
		|| error("%s", sentence);
}

static bool do_uncapture(struct words *words)
{
	uint64_t count = capture_end(words->word[1]);

	if (count == FOREVER)
		return error("there is no capture %s", words->word[1]);
	control_tell("ok %llu", (unsigned long long)count);
	return false;
}

static bool do_now(struct words *words)
{
	(void)words;
	control_tell("ok %llu", (unsigned long long)lab.now);
	return false;
}

static uint64_t frames(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < lab.node_count; i++)
		sum += lab.nodes[i].frames;
	return sum;
}

static bool do_hash(struct words *words)
{
	char hash[33];

	(void)words;
	trace_hash(hash);
	control_tell("ok %s %llu", hash, (unsigned long long)frames());
	return false;
}

/* All that is not as it was when the nodes were made: rules, cables, nodes that get no time. */
static bool do_changed(struct words *words)
{
	(void)words;
	rules_tell();
	for (int i = 0; i < lab.node_count; i++) {
		struct node *node = &lab.nodes[i];

		if (node->frozen)
			control_tell("+changed frozen %s", node->name);
		for (int k = 0; k < node->nic_count; k++)
			if (!node->nics[k].in_up || !node->nics[k].out_up)
				control_tell("+changed cable %s.%d %s down", node->name, k, node->nics[k].in_up ? "out"
					     : node->nics[k].out_up ? "in" : "both");
	}
	return true;
}

static const char *state_name(const struct node *node)
{
	static const char *names[] = { "off", "running", "waiting", "held" };

	return node->frozen ? "frozen" : names[node->state];
}

static bool do_stats(struct words *words)
{
	uint64_t grants = 0;

	(void)words;
	for (int i = 0; i < lab.node_count; i++) {
		struct node *node = &lab.nodes[i];

		grants += node->grants;
		control_tell("+node %s %s grants=%llu frames=%llu wants=%llu", node->name, state_name(node),
			     (unsigned long long)node->grants, (unsigned long long)node->frames,
			     (unsigned long long)node->request);
		for (int k = 0; k < node->nic_count; k++)
			control_tell("+nic %s.%d sent=%llu received=%llu lost=%llu", node->name, k,
				     (unsigned long long)node->nics[k].frames_sent,
				     (unsigned long long)node->nics[k].frames_received,
				     (unsigned long long)node->nics[k].frames_lost);
	}
	control_tell("ok now=%llu grants=%llu interrupts=%llu messages=%llu frames=%llu events=%zu",
		     (unsigned long long)lab.now, (unsigned long long)grants, (unsigned long long)lab.calls,
		     (unsigned long long)lab.messages, (unsigned long long)frames(), event_count());
	return false;
}

/* --- which one */

struct command {
	const char *name;
	int least, most;        /* words after the name */
	bool (*run)(struct words *words);       /* true: done, the answer is "ok"; false: it has answered */
};

static const struct command COMMANDS[] = {
	{ "segment", 3, 3, do_segment }, { "node", 1, 1 + MAX_NICS, do_node }, { "start", 1, 1, do_start },
	{ "seed", 1, 1, do_seed }, { "spin", 1, 1, do_spin }, { "wakes", 1, 1, do_wakes }, { "await", 2, 2, do_await },
	{ "run", 1, MAX_WORDS - 2, do_run }, { "say", 2, 2, do_say }, { "gone", 1, 1, do_gone },
	{ "freeze", 1, 1, do_freeze }, { "thaw", 1, 1, do_thaw }, { "cable", 3, 4, do_cable }, { "now", 0, 0, do_now },
	{ "hash", 0, 0, do_hash }, { "stats", 0, 0, do_stats }, { "rule", 4, 20, do_rule }, { "unrule", 1, 1, do_unrule },
	{ "hits", 1, 1, do_hits }, { "verdict", 2, 3, do_verdict }, { "inject", 4, 5, do_inject },
	{ "capture", 3, 3, do_capture }, { "uncapture", 1, 1, do_uncapture },
	{ "changed", 0, 0, do_changed },
};

static bool split(char *line, struct words *words)
{
	char *rest = strstr(line, " -- ");
	size_t size = strlen(line);

	if (rest) {
		*rest = 0;
		words->rest = rest + 4;
	} else if (size > 3 && !strcmp(line + size - 3, " --")) {
		line[size - 3] = 0;
	}
	for (char *word; (word = strsep(&line, " "));) {
		if (!*word || words->count == MAX_WORDS)
			return false;
		words->word[words->count++] = word;
	}
	return true;
}

/* Carry out a request, and answer. */
void request_execute(char *line)
{
	struct words words = { 0 };

	if (!split(line, &words)) {
		error("words are separated by one blank, and there are %d at most", MAX_WORDS);
		return;
	}
	for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++) {
		const struct command *command = &COMMANDS[i];
		int count = words.count - 1;

		if (strcmp(command->name, words.word[0]))
			continue;
		if (count < command->least || count > command->most)
			error("%s takes %d to %d words", command->name, command->least, command->most);
		else if (command->run(&words))
			control_tell("ok");
		return;
	}
	error("what is %.60s?", words.word[0]);
}
