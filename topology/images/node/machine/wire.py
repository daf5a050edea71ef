"""What the chassis and the guest's agent share: running commands, and the addresses of a machine.

Messages are JSON objects, one per line. A request carries ``id`` and ``do``; answers carry the same ``id`` and one of
``out``/``err`` (text as it came), ``done`` (exit code, last) or ``error`` (one sentence, last).

Standard library only, and little of it: this starts at every boot of a kernel where each system call costs 40 us.
(selectors costs nothing: the module socket imports it.)
"""

from __future__ import annotations

import codecs
import json
import os
import selectors
import signal
import socket
import struct
from functools import partial

TYPE_CHECKING = False  # the module typing is not loaded inside nodes; type checkers know this name
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]
    Send = Callable[[Message], None]

CHUNK_BYTES = 32768
WATCH_EVERY_MS = 400
"""How often the addresses of a machine are sampled, changed or not."""
NLMSG_DONE, RTM_NEWADDR, RTM_GETADDR = 3, 20, 22  # linux/netlink.h, linux/rtnetlink.h
NLM_F_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
RTMGRP_IPV4_IFADDR = 0x10
IFA_LOCAL = 2
LOOPBACK_INDEX = 1


def encode(message: Message) -> bytes:
    """A message as one ASCII line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Lines:
    """Cuts a byte stream into complete lines."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The complete lines in the stream so far, without their ends."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        return lines


class Poller:
    """Calls ``handler()`` for each descriptor that can be read."""

    def __init__(self) -> None:
        # poll(2), not epoll: it looks at each descriptor anew every time.
        self.selector = selectors.PollSelector()

    def add(self, fd: int, handler: Callable[[], None]) -> None:
        """Watch a descriptor."""
        self.selector.register(fd, selectors.EVENT_READ, handler)

    def remove(self, fd: int) -> None:
        """Stop watching a descriptor."""
        if fd in self.selector.get_map():
            self.selector.unregister(fd)

    def turn(self, timeout_ms: float | None) -> None:
        """Wait for readable descriptors, at most ``timeout_ms``, and handle each."""
        for key, _ in self.selector.select(None if timeout_ms is None else timeout_ms / 1000):
            if key.fd in self.selector.get_map():  # an earlier handler may have removed it
                key.data()


class Children:
    """Collects each child process that ended: ``ended`` gets its pid and its wait status."""

    def __init__(self, poller: Poller, ended: Callable[[int, int], None]) -> None:
        self.ended = ended
        self.wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poller.add(self.wake, self.woken)

    def woken(self) -> None:
        """A signal came: children ended."""
        os.read(self.wake, 4096)
        self.reap()

    def reap(self) -> None:
        """Collect all that ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.ended(pid, status)


class Job:
    """A running command: its open pipes, its exit code once it has one, and the function that gets its output."""

    def __init__(self, key: Any, send: Send) -> None:
        self.key, self.send = key, send
        self.pipes: set[int] = set()
        self.exit_code: int | None = None


class Jobs:
    """Running commands; each is the leader of a session of its own, so that all of it can be ended.

    The caller chooses the keys of its jobs.
    """

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.by_key: dict[Any, int] = {}  # key -> pid
        self.by_pid: dict[int, Job] = {}

    def start(self, key: Any, argv: list[str], send: Send) -> None:
        """Run ``argv``; ``send(dict)`` gets its output and its end."""
        pipes = {"out": os.pipe(), "err": os.pipe()}
        null = os.open("/dev/null", os.O_RDONLY)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, pipes[name][1], fd) for name, fd in (("out", 1), ("err", 2))]
        try:
            pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions, setsid=True)
        except OSError as error:
            for ends in pipes.values():
                os.close(ends[0])
            send({"error": f"cannot run {argv[0]}: {error.strerror}"})
            return
        finally:
            os.close(null)
            for ends in pipes.values():
                os.close(ends[1])
        self.by_key[key] = pid
        self.by_pid[pid] = Job(key, send)
        for name, (fd, _) in pipes.items():
            self.by_pid[pid].pipes.add(fd)
            decode = codecs.getincrementaldecoder("utf-8")("replace").decode
            self.poller.add(fd, partial(self._read, pid, fd, name, decode))

    def _read(self, pid: int, fd: int, name: str, decode: Callable[[bytes, bool], str]) -> None:
        data = os.read(fd, CHUNK_BYTES)
        text = decode(data, not data)
        if text:
            self.by_pid[pid].send({name: text})
        if not data:
            self.poller.remove(fd)
            os.close(fd)
            self.by_pid[pid].pipes.discard(fd)
            self._finish(pid)

    def reaped(self, pid: int, status: int) -> None:
        """A child ended. Its own children end with it: they may still hold its pipes."""
        if pid in self.by_pid:
            self.by_pid[pid].exit_code = os.waitstatus_to_exitcode(status)
            kill_group(pid, signal.SIGKILL)
            self._finish(pid)

    def _finish(self, pid: int) -> None:
        job = self.by_pid[pid]
        if job.exit_code is not None and not job.pipes:
            del self.by_pid[pid]
            self.by_key.pop(job.key, None)
            job.send({"done": job.exit_code})

    def signal(self, key: Any, number: int) -> None:
        """Send a signal to a running job's whole group."""
        if key in self.by_key:
            kill_group(self.by_key[key], number)

    def running(self) -> list[Any]:
        """The keys of all running jobs."""
        return list(self.by_key)


def kill_group(pid: int, number: int) -> None:
    """Signal a process group that may be gone already."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


class Addresses:
    """The IPv4 addresses of this network namespace, from the kernel itself (rtnetlink(7)), without a process."""

    def __init__(self) -> None:
        self.changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self.changes.bind((0, RTMGRP_IPV4_IFADDR))

    def fileno(self) -> int:
        """Readable when an address was added or removed."""
        return self.changes.fileno()

    def drain(self) -> None:
        """Discard the notifications: only the list after them counts."""
        try:
            while self.changes.recv(65536):
                pass
        except BlockingIOError:
            pass

    def now(self) -> list[str]:
        """All addresses except loopback's, sorted."""
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as dump:
            dump.send(
                struct.pack("=IHHII", 24, RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0) + struct.pack("=BBBBi", 2, 0, 0, 0, 0)
            )
            found: list[str] = []
            more = True
            while more:
                more = _parse_addresses(dump.recv(65536), found)
        return sorted(found)


def _parse_addresses(data: bytes, found: list[str]) -> bool:
    """Add the addresses of one netlink datagram to ``found``; False when the dump is complete."""
    at = 0
    while at + 16 <= len(data):
        size, kind = struct.unpack_from("=IH", data, at)
        if kind == NLMSG_DONE:
            return False
        if kind == RTM_NEWADDR and struct.unpack_from("=I", data, at + 20)[0] != LOOPBACK_INDEX:
            rta = at + 24
            while rta + 4 <= at + size:
                length, attribute = struct.unpack_from("=HH", data, rta)
                if attribute == IFA_LOCAL:
                    found.append(socket.inet_ntoa(data[rta + 4 : rta + 8]))
                rta += (length + 3) & ~3
        at += (size + 3) & ~3
    return True
