"""A client of the simulator, and guests that speak its protocols without being kernels.

A ``Guest`` is a thread that asks for virtual time as a kernel does (linux/um_timetravel.h), with devices as those of
``virtio_uml`` (vhost-user with in-band notifications). What it does, it does at times that a test has set.
"""

from __future__ import annotations

import base64
import contextlib
import mmap
import os
import select
import shlex
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.wait import NotYet, until
from tests.support.program import DEADLINE_S

SOURCES = Path(__file__).parents[2] / "topology/images/switch/simulator"
COMMAND = "MONKEYWRENCH_SIMULATOR"
"""The command that runs the simulator, if it is not to be compiled here; the folder follows it."""

LATENCY_NS = 50_000
WIRE_NS = 8
"""A byte takes 8 ns at 1 Gbit/s."""
FOREVER = 2**63 - 1
POLL_S = 0.005


def compilable() -> bool:
    """Whether the simulator can be compiled on this machine."""
    return bool(shutil.which("gcc") and shutil.which("make")) and all(
        Path("/usr/include", header).exists() for header in ("pcap/pcap.h", "xxhash.h")
    )


needs_simulator = pytest.mark.skipif(
    not (compilable() or COMMAND in os.environ), reason="gcc, make, libpcap-dev or libxxhash-dev is missing"
)


def built(folder: Path) -> list[str]:
    """The command that runs the simulator: compiled into a folder, with the sanitizers on, unless COMMAND is set."""
    if COMMAND in os.environ:
        return shlex.split(os.environ[COMMAND])
    subprocess.run(["make", "-s", "-C", str(SOURCES), "checked", f"TO={folder}"], check=True)
    return [str(folder / "simulator-checked")]


class RefusedError(Exception):
    """The simulator's answer was an error."""


class Client:
    """The control channel."""

    def __init__(self, folder: Path) -> None:
        self.events: list[str] = []
        self._socket = until(lambda: connected(folder / "control"), DEADLINE_S, "the control channel", POLL_S)
        self._lines = self._socket.makefile("rb")

    def ask(self, *words: str | int) -> list[str]:
        """The words of the answer; its events are in ``events``."""
        self.send(*words)
        return self.answer()

    def send(self, *words: str | int) -> None:
        self._socket.sendall(" ".join(map(str, words)).encode() + b"\n")

    def answer(self) -> list[str]:
        while line := self._lines.readline().decode().rstrip("\n"):
            if not line.startswith("+"):
                word, _, rest = line.partition(" ")
                if word != "ok":
                    raise RefusedError(rest)
                return rest.split()
            self.events.append(line)
        raise ConnectionError("the simulator hung up")

    def said(self, name: str) -> list[tuple[int, bytes]]:
        """What a node wrote to its console, and when."""
        words = [line.split() for line in self.events if line.startswith(f"+said {name} ")]
        return [(int(time), base64.b64decode(text)) for _, _, time, text in words]

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def connected(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        made.connect(str(path))
    except OSError as error:
        made.close()
        raise NotYet(str(error)) from error
    return made


@contextlib.contextmanager
def simulator(command: list[str]) -> Iterator[Path]:
    """A running simulator; -> its folder."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "s")
        with subprocess.Popen([*command, str(folder)]) as process:
            try:
                yield folder
                assert process.poll() is None, "the simulator ended"
            finally:
                process.terminate()


# --- a guest


BASE = 0x100000
"""The guest's address of the first byte of its memory."""
RING = 0x10000
"""Memory of each ring: descriptors, available ring, used ring, and buffers."""
AVAILABLE, USED, BUFFERS = 0x1000, 0x2000, 0x4000
ENTRIES = 16
BUFFER = 2048
HEADER = 12
"""Bytes before a vhost-user message's payload, and also before a frame of virtio-net."""


class Ring:
    """A virtqueue in the guest's memory."""

    def __init__(self, memory: mmap.mmap, start: int, *, to_guest: bool) -> None:
        self.memory, self.start, self.to_guest = memory, start, to_guest
        self.offered = self.seen = 0
        for entry in range(ENTRIES if to_guest else 0):
            self.offer(entry, b"")

    def offer(self, entry: int, content: bytes) -> None:
        """Offer a buffer: with content to be sent, or empty to be filled."""
        at = self.start + BUFFERS + entry * BUFFER
        if self.to_guest:
            self.describe(entry, BASE + at, BUFFER, flags=2)
        else:
            self.memory[at : at + len(content)] = content
            self.describe(entry, BASE + at, len(content))
        self.publish(entry)

    def describe(self, entry: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        struct.pack_into("<QIHH", self.memory, self.start + 16 * entry, address, length, flags, following)

    def publish(self, head: int) -> None:
        struct.pack_into("<H", self.memory, self.start + AVAILABLE + 4 + 2 * (self.offered % ENTRIES), head)
        self.offered = (self.offered + 1) % 65536
        struct.pack_into("<H", self.memory, self.start + AVAILABLE + 2, self.offered)

    def refuse_interrupts(self, refuse: bool) -> None:
        struct.pack_into("<H", self.memory, self.start + AVAILABLE, refuse)

    def used(self) -> Iterator[bytes]:
        """The content of buffers that came back; they are offered again."""
        while self.seen != struct.unpack_from("<H", self.memory, self.start + USED + 2)[0]:
            at = self.start + USED + 4 + 8 * (self.seen % ENTRIES)
            entry, length = struct.unpack_from("<II", self.memory, at)
            self.seen = (self.seen + 1) % 65536
            content = self.start + BUFFERS + entry * BUFFER
            yield self.memory[content : content + length]
            if self.to_guest:
                self.offer(entry, b"")


class Device:
    """A NIC or a console, as the guest's driver sees it."""

    def __init__(self, path: Path, rings: int = 2) -> None:
        self.socket = until(lambda: connected(path), DEADLINE_S, path.name, POLL_S)
        self.socket.settimeout(DEADLINE_S)
        self.file = os.memfd_create("guest")
        os.ftruncate(self.file, rings * RING)
        self.memory = mmap.mmap(self.file, rings * RING)
        self.rings = [Ring(self.memory, number * RING, to_guest=number % 2 == 0) for number in range(rings)]
        self.calls, self._theirs = socket.socketpair()
        self.features = self.ask(1)
        self.ask(16, struct.pack("<Q", self.ask(15)))
        self.ask(2, struct.pack("<Q", self.features))
        self.ask(21, b"", [self._theirs.fileno()])
        self._theirs.close()
        self.share(rings * RING)
        for number, _ in enumerate(self.rings):
            at = BASE + number * RING
            self.ask(8, struct.pack("<II", number, ENTRIES))
            self.ask(10, struct.pack("<II", number, 0))
            self.ask(9, struct.pack("<IIQQQQ", number, 0, at, at + USED, at + AVAILABLE, 0))
            self.ask(18, struct.pack("<II", number, 1))

    def share(self, size: int, offset: int = 0) -> int:
        return self.ask(5, struct.pack("<IIQQQQ", 1, 0, BASE, size, BASE, offset), [self.file])

    def ask(self, request: int, payload: bytes = b"", files: list[int] | None = None) -> int:
        """The number in the answer. Raises ConnectionError when the simulator has hung up."""
        self.send(struct.pack("<III", request, 1 | 8, len(payload)) + payload, files)
        return int(struct.unpack("<Q", self.read(HEADER + 8)[HEADER:])[0])

    def send(self, data: bytes, files: list[int] | None = None) -> None:
        socket.send_fds(self.socket, [data], files or [])

    def read(self, size: int) -> bytes:
        return read(self.socket, size)

    def kick(self, ring: int) -> None:
        self.ask(35, struct.pack("<II", ring, 0))

    def interrupted(self) -> None:
        """Read an interrupt, and acknowledge it."""
        request, _, size = struct.unpack("<III", read(self.calls, HEADER))
        read(self.calls, size)
        self.calls.sendall(struct.pack("<IIIQ", request, 5, 8, 0))

    def close(self) -> None:
        self.socket.close()
        self.calls.close()
        os.close(self.file)


def read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


Action = Callable[["Guest"], None]
ACK, START, REQUEST, WAIT, GET, UPDATE, RUN, FREE_UNTIL, GET_TOD = range(9)


class Guest:
    """What a kernel is for the simulator."""

    def __init__(self, folder: Path, name: str, number: int, nics: int = 1, actions: dict[int, Action] | None = None):
        self.folder, self.name, self.number, self.nics = folder, name, number, nics
        self.actions = dict(actions or {})
        self.now = 0
        self.runs: list[int] = []
        self.frames: list[tuple[int, bytes]] = []
        self.heard: list[tuple[int, bytes]] = []
        self.error: Exception | None = None
        self.calendar = socket.socket(socket.AF_UNIX)
        self.devices: list[Device] = []
        """Its NICs, and then its console."""
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    # --- what actions use

    def write(self, text: bytes) -> None:
        """Write to the console."""
        for at in range(0, len(text), BUFFER):
            self._offer(self.devices[-1], text[at : at + BUFFER])

    def transmit(self, frame: bytes, nic: int = 0) -> None:
        self._offer(self.devices[nic], bytes(HEADER) + frame)

    def spend(self, ns: int) -> None:
        """Let time go by without standing, as far as that is granted."""
        assert self.now + ns < self._until(), "not granted"
        self.now += ns
        self._tell_time()

    def _offer(self, device: Device, content: bytes) -> None:
        ring = device.rings[1]
        for _ in ring.used():
            pass
        self._tell_time()
        ring.offer(ring.offered % ENTRIES, content)
        device.kick(1)

    # --- the calendar

    def ask(self, operation: int, time: int = 0) -> int:
        self.calendar.sendall(struct.pack("<IIQ", operation, 7, time))
        while True:
            answer, _, value = struct.unpack("<IIQ", read(self.calendar, 16))
            if answer == ACK:
                return int(value)

    def _connect(self) -> None:
        self.calendar = until(lambda: connected(self.folder / "calendar"), DEADLINE_S, "the calendar", POLL_S)
        self.calendar.settimeout(DEADLINE_S)
        self.calendar.sendall(struct.pack("<IIQ", START, 1, self.number))
        data, files, _, _ = socket.recv_fds(self.calendar, 16, 2)
        if len(data) < 16:
            raise ConnectionResetError
        self.me = struct.unpack("<IIQ", data)[2] & 0xFFFF
        self.shared = mmap.mmap(files[0], 8192)
        for file in files:
            os.close(file)
        self.now = self.offset = self._time()
        self._client("<I", 0, 1)
        self.tod = self.ask(GET_TOD)

    def _time(self) -> int:
        return int(struct.unpack_from("<Q", self.shared, 16)[0])

    def _until(self) -> int:
        return int(struct.unpack_from("<Q", self.shared, 8)[0])

    def _tell_time(self) -> None:
        struct.pack_into("<Q", self.shared, 16, self.now)

    def _client(self, form: str, offset: int, value: int) -> None:
        struct.pack_into(form, self.shared, 4096 + 128 * self.me + offset, value)

    def _want(self, time: int) -> None:
        self._client("<Q", 8, time)
        self._client("<I", 4, 1)

    # --- the loop

    def _run(self) -> None:
        try:
            self._connect()
            for name in (*map(str, range(self.nics)), "serial"):
                self.devices.append(Device(self.folder / f"{self.name}.{name}"))
            self._stand()
            while True:
                self._turn()
        except (OSError, ValueError) as error:
            self.error = error
        finally:
            self._close()

    def _stand(self) -> None:
        self._want(min((time for time in self.actions), default=FOREVER))
        self.calendar.sendall(struct.pack("<IIQ", WAIT, 1, 0))

    def _turn(self) -> None:
        sources = [self.calendar, *(device.calls for device in self.devices)]
        ready, _, _ = select.select(sources, [], [], DEADLINE_S)
        if not ready:
            raise TimeoutError
        for device in self.devices:
            if device.calls in ready:
                self._want(self._time())
                device.interrupted()
        if self.calendar in ready:
            operation, _, time = struct.unpack("<IIQ", read(self.calendar, 16))
            if operation == RUN:
                self._granted(time + self.offset)

    def _granted(self, time: int) -> None:
        self._client("<I", 4, 0)
        self.now = max(self.now, time)
        self.runs.append(self.now)
        for device in self.devices[:-1]:
            self.frames += [(self.now, content[HEADER:]) for content in device.rings[0].used()]
        self.heard += [(self.now, content) for content in self.devices[-1].rings[0].used()]
        for due in sorted(due for due in self.actions if due <= self.now):
            self.actions.pop(due)(self)
        self._stand()

    def ended(self) -> None:
        """Wait until its connections are closed by the simulator."""
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive(), f"{self.name} is still connected"

    def kill(self) -> None:
        """End it as a power cut does."""
        for each in self._sockets():
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.ended()

    def _sockets(self) -> list[socket.socket]:
        """Those of the calendar and the devices, as far as they are connected."""
        return [self.calendar, *(device.socket for device in self.devices)]

    def _close(self) -> None:
        for each in self._sockets():
            each.close()
        for device in self.devices:
            device.close()
