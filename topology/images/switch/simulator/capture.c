/* Captures: pcapng files (draft-ietf-opsawg-pcapng) with virtual time in ns. */
#include "lab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CAPTURES 64
#define MAX_PLACES 64
#define ETHERNET 1
#define OPTION_NAME 2
#define OPTION_RESOLUTION 9
#define OPTION_FLAGS 2

struct place {
	struct device *nic;
	struct segment *segment;
};

struct capture {
	char id[MAX_NAME];
	FILE *file;
	struct filter *filter;
	struct place places[MAX_PLACES];
	int place_count;
	uint64_t frames;
};

static struct capture *captures[MAX_CAPTURES];
static int capture_count;

struct block {
	uint8_t bytes[MAX_FRAME + 512];
	uint32_t size;
};

static void put(struct block *block, const void *bytes, uint32_t size)
{
	if (size)
		memcpy(block->bytes + block->size, bytes, size);
	block->size += size;
	while (block->size % 4)
		block->bytes[block->size++] = 0;
}

static void put_u32(struct block *block, uint32_t value)
{
	put(block, &value, sizeof value);
}

static void put_option(struct block *block, uint16_t code, const void *bytes, uint16_t size)
{
	uint16_t head[2] = { code, size };

	put(block, head, sizeof head);
	put(block, bytes, size);
}

static void begin(struct block *block, uint32_t type)
{
	block->size = 0;
	put_u32(block, type);
	put_u32(block, 0);
}

static void end(struct block *block, FILE *file)
{
	uint32_t size = block->size + 4;

	memcpy(block->bytes + 4, &size, sizeof size);
	put_u32(block, size);
	fwrite(block->bytes, 1, block->size, file);
}

static void write_head(struct capture *capture, char **names)
{
	static struct block block;
	uint8_t nanoseconds = 9;

	begin(&block, 0x0a0d0d0a);
	put_u32(&block, 0x1a2b3c4d);    /* byte order */
	put_u32(&block, 1);             /* version 1.0 */
	put_u32(&block, UINT32_MAX);    /* length of the section: not known */
	put_u32(&block, UINT32_MAX);
	end(&block, capture->file);
	for (int i = 0; i < capture->place_count; i++) {
		begin(&block, 1);
		put_u32(&block, ETHERNET);
		put_u32(&block, 0);     /* no limit of bytes */
		put_option(&block, OPTION_NAME, names[i], (uint16_t)strlen(names[i]));
		put_option(&block, OPTION_RESOLUTION, &nanoseconds, 1);
		put_option(&block, 0, NULL, 0);
		end(&block, capture->file);
	}
}

static void write_frame(struct capture *capture, uint32_t place, const struct frame *frame, uint32_t flags)
{
	static struct block block;
	uint64_t time = lab.start_tod + lab.now;

	begin(&block, 6);
	put_u32(&block, place);
	put_u32(&block, (uint32_t)(time >> 32));
	put_u32(&block, (uint32_t)time);
	put_u32(&block, (uint32_t)frame->length);
	put_u32(&block, (uint32_t)frame->length);
	put(&block, frame->bytes, (uint32_t)frame->length);
	if (flags) {
		put_option(&block, OPTION_FLAGS, &flags, sizeof flags);
		put_option(&block, 0, NULL, 0);
	}
	end(&block, capture->file);
	capture->frames++;
}

static void write_where(const struct device *nic, const struct segment *segment, const struct frame *frame, uint32_t flags)
{
	for (int i = 0; i < capture_count; i++) {
		struct capture *capture = captures[i];

		for (int k = 0; k < capture->place_count; k++)
			if (capture->places[k].nic == nic && capture->places[k].segment == segment
			    && filter_takes(capture->filter, frame))
				write_frame(capture, (uint32_t)k, frame, flags);
	}
}

/* A frame came out of a node (before the rules), or goes into one (behind them): seen at the switch's end of its cable. */
void capture_cable(const struct device *nic, const struct frame *frame, bool to_node)
{
	if (capture_count)
		write_where(nic, NULL, frame, to_node ? 2 : 1); /* outbound, inbound */
}

/* A frame passes through a segment, behind the rules of its sender. */
void capture_segment(const struct segment *segment, const struct frame *frame)
{
	if (capture_count)
		write_where(NULL, segment, frame, 0);
}

static void free_capture(struct capture *capture)
{
	if (capture->file)
		fclose(capture->file);
	if (capture->filter)
		filter_free(capture->filter);
	free(capture);
}

static int index_of(const char *id)
{
	for (int i = 0; i < capture_count; i++)
		if (!strcmp(captures[i]->id, id))
			return i;
	return -1;
}

/* PLACE[,PLACE ...]; the names are left in `names`. */
static bool set_places(struct capture *capture, char *text, char **names, char sentence[MAX_SENTENCE])
{
	for (char *name; (name = strsep(&text, ","));) {
		struct place *place = &capture->places[capture->place_count];

		if (capture->place_count == MAX_PLACES || strlen(name) > MAX_NAME + 8
		    || !place_find(name, &place->nic, &place->segment)) {
			snprintf(sentence, MAX_SENTENCE, "there is no place %.60s, or there are too many", name);
			return false;
		}
		names[capture->place_count++] = name;
	}
	return true;
}

/* Begin a capture; false: the sentence says why not. */
bool capture_begin(const char *id, const char *path, char *places, const char *filter, char sentence[MAX_SENTENCE])
{
	struct capture *capture = must_allocate(sizeof *capture);
	char *names[MAX_PLACES];

	if (capture_count == MAX_CAPTURES || strlen(id) >= MAX_NAME || index_of(id) >= 0) {
		snprintf(sentence, MAX_SENTENCE, "%.60s is no name for a capture, or taken", id);
		goto bad;
	}
	snprintf(capture->id, sizeof capture->id, "%s", id);
	if (!set_places(capture, places, names, sentence) || !(capture->filter = filter_make(filter, sentence)))
		goto bad;
	capture->file = fopen(path, "we");
	if (!capture->file) {
		snprintf(sentence, MAX_SENTENCE, "%.100s: %s", path, strerror(errno));
		goto bad;
	}
	write_head(capture, names);
	captures[capture_count++] = capture;
	capture_flush();
	return true;
bad:
	free_capture(capture);
	return false;
}

/* What is captured so far is in the file. A file that cannot be written ends its capture. */
void capture_flush(void)
{
	for (int i = 0; i < capture_count; i++)
		if (fflush(captures[i]->file) || ferror(captures[i]->file)) {
			control_tell("+uncaptured %s %s", captures[i]->id, strerror(errno));
			free_capture(captures[i]);
			captures[i--] = captures[--capture_count];
		}
}

/* End a capture; -> its frames, FOREVER: there is none. */
uint64_t capture_end(const char *id)
{
	int at = index_of(id);
	uint64_t frames;

	if (at < 0)
		return FOREVER;
	frames = captures[at]->frames;
	free_capture(captures[at]);
	captures[at] = captures[--capture_count];
	return frames;
}
