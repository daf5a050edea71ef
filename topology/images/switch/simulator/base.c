/* Small things that every part uses. */
#include "lab.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* End with a sentence: only for what the machine refuses, such as memory. Nothing that a guest does leads here. */
void die(const char *format, ...)
{
	va_list words;

	va_start(words, format);
	fputs("simulator: ", stderr);
	vfprintf(stderr, format, words);
	fputc('\n', stderr);
	va_end(words);
	exit(1);
}

void *must_allocate(size_t size)
{
	void *memory = calloc(1, size);

	if (!memory)
		die("no memory");
	return memory;
}

void *must_grow(void *old, size_t size)
{
	void *memory = realloc(old, size);

	if (!memory)
		die("no memory");
	return memory;
}

uint64_t real_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

/* The next number of a stream of random numbers: SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_size(size_t length)
{
	return (length + 2) / 3 * 4;
}

/* Write the base64 text of bytes (RFC 4648), without a 0 at its end; -> its length. */
size_t base64_encode(const uint8_t *bytes, size_t length, char *text)
{
	char *out = text;

	for (size_t i = 0; i < length; i += 3) {
		uint32_t left = length - i > 2 ? 3 : (uint32_t)(length - i);
		uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0)
			| (left > 2 ? bytes[i + 2] : 0);

		*out++ = BASE64[group >> 18];
		*out++ = BASE64[group >> 12 & 63];
		*out++ = left > 1 ? BASE64[group >> 6 & 63] : '=';
		*out++ = left > 2 ? BASE64[group & 63] : '=';
	}
	return (size_t)(out - text);
}

static int base64_value(char letter)
{
	const char *found = letter ? strchr(BASE64, letter) : NULL;

	return found ? (int)(found - BASE64) : -1;
}

/* Write the bytes of a base64 text (room for 3 bytes every 4 characters); -> how many, -1 if it is none. */
ssize_t base64_decode(const char *text, uint8_t *bytes)
{
	size_t length = strlen(text);
	uint8_t *out = bytes;

	if (length % 4)
		return -1;
	for (size_t i = 0; i < length; i += 4) {
		bool last = i + 4 == length;
		int padding = last && text[i + 3] == '=' ? (text[i + 2] == '=' ? 2 : 1) : 0;
		uint32_t group = 0;

		for (int k = 0; k < 4; k++) {
			int value = k >= 4 - padding ? 0 : base64_value(text[i + (size_t)k]);

			if (value < 0)
				return -1;
			group = group << 6 | (uint32_t)value;
		}
		*out++ = (uint8_t)(group >> 16);
		if (padding < 2)
			*out++ = (uint8_t)(group >> 8);
		if (padding < 1)
			*out++ = (uint8_t)group;
	}
	return out - bytes;
}

/* A decimal number without a sign, at most FOREVER. */
bool parse_number(const char *text, uint64_t *value)
{
	uint64_t sum = 0;

	if (!text || !*text || strlen(text) > 19)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		sum = sum * 10 + (uint64_t)(*text - '0');
	}
	*value = sum;
	return sum <= FOREVER;
}

struct frame *frame_make(const uint8_t *bytes, size_t length)
{
	struct frame *frame = must_allocate(sizeof *frame + length);

	frame->uses = 1;
	frame->length = (int)length;
	memcpy(frame->bytes, bytes, length);
	return frame;
}

struct frame *frame_share(struct frame *frame)
{
	frame->uses++;
	return frame;
}

void frame_drop(struct frame *frame)
{
	if (frame && --frame->uses == 0)
		free(frame);
}
