/* The sockets in the lab's folder, and who has something to read. */
#include "lab.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BATCH 64

int listen_at(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int length = snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", lab.folder, name);

	if (length < 0 || (size_t)length >= sizeof address.sun_path)
		die("the path of %s is too long", name);
	unlink(address.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 64))
		die("%s: %s", address.sun_path, strerror(errno));
	return fd;
}

static void set_events(struct source *source, int operation, uint32_t events)
{
	struct epoll_event wanted = { .events = events, .data.ptr = source };

	if (epoll_ctl(lab.epoll, operation, source->fd, &wanted))
		die("epoll: %s", strerror(errno));
}

void watch(struct source *source, enum source_kind kind, int fd, void *owner)
{
	*source = (struct source){ kind, fd, owner };
	set_events(source, EPOLL_CTL_ADD, EPOLLIN);
}

/* Watch for a hang-up only, or for bytes as well. */
void watch_bytes(struct source *source, bool bytes)
{
	set_events(source, EPOLL_CTL_MOD, bytes ? EPOLLIN | EPOLLRDHUP : EPOLLRDHUP);
}

/* Close it. */
void unwatch(struct source *source)
{
	if (source->fd < 0)
		return;
	epoll_ctl(lab.epoll, EPOLL_CTL_DEL, source->fd, NULL);
	close(source->fd);
	source->fd = -1;
}

static void handle(struct source *source, uint32_t events)
{
	switch (source->kind) {
	case FROM_DEVICE_LISTENER:
		device_connect(source->owner);
		break;
	case FROM_DEVICE:
		device_readable(source->owner);
		break;
	case FROM_CALENDAR:
		calendar_readable(source->owner);
		break;
	case FROM_CALENDAR_LISTENER:
		calendar_connect();
		break;
	case FROM_NEWCOMER:
		newcomer_readable(source);
		break;
	case FROM_CONTROL_LISTENER:
		control_connect();
		break;
	case FROM_CONTROL:
		if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
			lab.stop = true;
		if (events & EPOLLIN)
			control_readable();
	}
}

/* What a kernel did with its devices comes before what it says to the calendar: it did it before. */
static int turn(enum source_kind kind)
{
	if (kind == FROM_DEVICE || kind == FROM_DEVICE_LISTENER)
		return 0;
	return kind == FROM_CALENDAR ? 1 : 2;
}

/* Handle what is there to be read; wait so long for it at most, -1 without an end. Only newcomers are ever freed, and
 * they come last.
 */
void serve(int timeout_real_ms)
{
	struct epoll_event events[BATCH];
	int count = epoll_wait(lab.epoll, events, BATCH, timeout_real_ms);

	for (int now = 0; now < 3; now++)
		for (int i = 0; i < count; i++) {
			struct source *source = events[i].data.ptr;

			if (turn(source->kind) == now && source->fd >= 0)
				handle(source, events[i].events);
		}
}
