/* The control channel: one client, lines, one answer for each. */
#include "lab.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_LINE (64u << 20)    /* bytes of a request */
#define FLUSH_AT 65536

struct text {
	char *bytes;
	size_t size, room;
};

static struct text requests, answers;

/* --- to the client */

static void append(struct text *text, const char *bytes, size_t size)
{
	if (text->room < text->size + size) {
		text->room = 2 * (text->size + size) + 4096;
		text->bytes = must_grow(text->bytes, text->room);
	}
	memcpy(text->bytes + text->size, bytes, size);
	text->size += size;
}

static void flush(void)
{
	size_t done = 0;

	while (done < answers.size && lab.control.fd >= 0) {
		ssize_t part = send(lab.control.fd, answers.bytes + done, answers.size - done, MSG_NOSIGNAL);

		if (part < 0 && errno == EINTR)
			continue;
		if (part <= 0) {
			lab.stop = true;
			break;
		}
		done += (size_t)part;
	}
	answers.size = 0;
}

static void tell_line(const char *line, size_t size)
{
	if (lab.control.fd < 0)
		return;
	append(&answers, line, size);
	append(&answers, "\n", 1);
	if (answers.size > FLUSH_AT)
		flush();
}

/* A line to the client: an event or an answer. */
void control_tell(const char *format, ...)
{
	char line[1024];
	va_list words;
	int size;

	va_start(words, format);
	size = vsnprintf(line, sizeof line, format, words);
	va_end(words);
	tell_line(line, size < (int)sizeof line ? (size_t)size : sizeof line - 1);
}

/* A line with bytes at its end. */
void control_tell_bytes(const char *prefix, const uint8_t *bytes, size_t length)
{
	size_t before = strlen(prefix);
	char *line = must_allocate(before + base64_size(length));

	memcpy(line, prefix, before);
	tell_line(line, before + base64_encode(bytes, length, line + before));
	free(line);
}

/* --- the client */

static bool hung_up(int fd)
{
	struct pollfd state = { fd, POLLRDHUP, 0 };

	return poll(&state, 1, 0) > 0;
}

/* A client connects. One at a time: while another one is there, or its last request is still carried out, it waits or
 * is turned away.
 */
void control_connect(void)
{
	int fd;

	if (lab.control.fd >= 0 && hung_up(lab.control.fd))
		lab.stop = true;
	if (lab.stop)
		return;
	fd = accept4(lab.control_listener.fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	if (lab.control.fd >= 0) {
		(void)!send(fd, "refused busy\n", 13, MSG_NOSIGNAL | MSG_DONTWAIT);
		close(fd);
		return;
	}
	watch(&lab.control, FROM_CONTROL, fd, NULL);
	watch_bytes(&lab.control, true);
}

void control_close(void)
{
	unwatch(&lab.control);
	requests.size = answers.size = 0;
	lab.stop = false;
}

void control_readable(void)
{
	char bytes[65536];
	ssize_t got = recv(lab.control.fd, bytes, sizeof bytes, MSG_DONTWAIT);

	if (got > 0 && requests.size + (size_t)got <= MAX_LINE)
		append(&requests, bytes, (size_t)got);
	else if (got >= 0 || (errno != EAGAIN && errno != EINTR))
		lab.stop = true;
}

/* Carry out the requests that are there. While one is, the client can only hang up. */
void control_work(void)
{
	size_t done = 0;
	char *end;

	while (!lab.stop && requests.size > done && (end = memchr(requests.bytes + done, '\n', requests.size - done))) {
		*end = 0;
		watch_bytes(&lab.control, false);
		request_execute(requests.bytes + done);
		trace_flush();
		capture_flush();
		flush();
		watch_bytes(&lab.control, true);
		done = (size_t)(end - requests.bytes) + 1;
	}
	if (lab.stop) {
		control_close();
		return;
	}
	if (done) {
		requests.size -= done;
		memmove(requests.bytes, requests.bytes + done, requests.size);
	}
}
