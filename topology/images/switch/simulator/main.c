/* simulator FOLDER: the calendar, switch and serial lines of one lab (docs/virtual-time.md). */
#include "lab.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#define SPIN_REAL_MS 30000      /* a node that runs so long within one instant will not stop by itself */

struct lab lab;

int main(int count, char **words)
{
	if (count != 2 || strlen(words[1]) >= sizeof lab.folder)
		die("usage: simulator FOLDER (its path has less than %zu characters)", sizeof lab.folder);
	signal(SIGPIPE, SIG_IGN);
	guard_guest_memory();
	snprintf(lab.folder, sizeof lab.folder, "%s", words[1]);
	if (mkdir(lab.folder, 0755) && errno != EEXIST)
		die("%s: %s", lab.folder, strerror(errno));
	trace_open();
	lab.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (lab.epoll < 0)
		die("epoll: %s", strerror(errno));
	lab.lookahead = FOREVER / 4;
	lab.spin_real_ms = SPIN_REAL_MS;
	lab.control.fd = -1;
	watch(&lab.calendar_listener, FROM_CALENDAR_LISTENER, listen_at("calendar"), NULL);
	watch(&lab.control_listener, FROM_CONTROL_LISTENER, listen_at("control"), NULL);
	for (;;) {
		serve(-1);
		control_work();
	}
}
