"""Real kernels under the simulator: the same happens again, to the nanosecond, whatever else the machine does."""

from __future__ import annotations

import base64
import contextlib
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.simulator import LATENCY_NS, Client
from topology.lab import engine, image

S = 10**9
MS = 10**6
NODES = ("a", "b", "c")
BOOT_WITHIN_MS = 60_000
KERNEL = "/opt/uml/linux.uml"
COST = "tt-cost=2000,500000,1000000,20000,50"
INIT = """#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH
mount -t proc proc /proc; mount -t tmpfs run /run
ip link set lo up; ip addr add 10.0.0.$number/24 dev eth0; ip link set eth0 up
exec python3 -I -S /sim/console.py
"""
CONSOLE = """
import os, subprocess, tty
fd = os.open("/dev/hvc0", os.O_RDWR | os.O_NOCTTY)
tty.setraw(fd)
os.write(fd, b"hello\\n")
data = b""
while True:
    while b"\\n" not in data:
        data += os.read(fd, 4096)
    line, _, data = data.partition(b"\\n")
    done = subprocess.run(["sh", "-c", line.decode()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    answer = done.stdout + b"done %d\\n" % done.returncode
    while answer:
        answer = answer[os.write(fd, answer):]
"""


class Site:
    """A simulator and kernels, each in a container. All share a folder, by the same name inside of each."""

    def __init__(self, home: Path, images: dict[str, str]) -> None:
        self.home, self.images, self.docker = home, images, engine.connect()
        self.mark = uuid.uuid4().hex[:8]
        self.now = 0
        (home / "console.py").write_text(CONSOLE)
        for number, name in enumerate(NODES, 1):
            (home / f"init-{name}").write_text(INIT.replace("$number", str(number)))
            (home / f"init-{name}").chmod(0o755)
        self.containers = {"": self.run("switch", "", ["/usr/lib/monkeywrench/simulator", "/sim/s"])}
        self.client = Client(home / "s")
        self.client.ask("start", 1_800_000_000 * S)
        self.client.ask("seed", 1)
        self.client.ask("segment", "lan", LATENCY_NS, 10**9)
        for number, name in enumerate(NODES, 1):
            self.client.ask("node", name, f"lan/02:77:00:00:00:0{number}")

    def run(self, role: str, name: str, command: list[str]) -> Any:
        return self.docker.containers.run(
            self.images[role],
            command,
            name=f"monkeywrench-simulated-{self.mark}-{name}",
            detach=True,
            init=True,
            network_mode="none",
            security_opt=["seccomp=unconfined"],
            cap_add=["SYS_PTRACE"],
            tmpfs={"/uml": "exec,size=200m"},
            environment={"TMPDIR": "/uml"},
            volumes={str(self.home): {"bind": "/sim", "mode": "rw"}},
        )

    def boot(self, *names: str) -> None:
        for name in names:
            number = NODES.index(name) + 1
            words = "mem=96M root=/dev/root rootfstype=hostfs rw con=null con0=null,fd:1 ssl=null lpj=20000000 quiet"
            words += f" uml_dir=/uml/ umid=machine seccomp=on seed={number} {COST} init=/sim/init-{name}"
            words += f" time-travel=ext:{number}:/sim/s/calendar"
            words += f" virtio_uml.device=/sim/s/{name}.0:1 virtio_uml.device=/sim/s/{name}.serial:3"
            self.containers[name] = self.run("resolver", name, [KERNEL, *words.split()])
        for name in names:
            self.client.ask("await", name, BOOT_WITHIN_MS)
        for name in names:
            self.until(name, "hello", since=len(self.client.events))

    def until(self, name: str, word: str, since: int = 0, within_ns: int = 100 * S) -> str:
        """What a node says from an event on, up to a word."""
        end = self.now + within_ns
        while True:
            said = "".join(
                base64.b64decode(line.split()[3]).decode()
                for line in self.client.events[since:]
                if line.startswith(f"+said {name} ")
            )
            if word in said:
                return said
            time, reason, *_ = self.client.ask("run", end, name)
            self.now = int(time)
            assert reason == "wake", (reason, said, self.client.events[-3:])

    def exec(self, name: str, command: str) -> str:
        since = len(self.client.events)
        self.client.ask("say", name, base64.b64encode(command.encode() + b"\n").decode())
        return self.until(name, "done ", since)

    def later(self, ns: int) -> None:
        assert self.client.ask("run", self.now + ns)[1] == "time"
        self.now += ns

    def cut_power(self, name: str) -> None:
        self.containers.pop(name).remove(force=True)
        self.client.ask("gone", name)

    def close(self) -> None:
        for container in self.containers.values():
            container.remove(force=True)


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    client = engine.connect()
    if not image.exists(client, image.own_kernel()):
        pytest.skip("the kernel for virtual time is not built; a lab with --clock virtual builds it")
    return image.ensure(client, print, "virtual")


@contextlib.contextmanager
def site(images: dict[str, str]) -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as home:
        made = Site(Path(home), images)
        try:
            yield made
        finally:
            made.close()


@contextlib.contextmanager
def busy(processes: int = 4) -> Iterator[None]:
    """Other work on this machine."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    yield
    for other in others:
        other.kill()
        other.wait()


def answered(text: str) -> list[int]:
    """The numbers of the pings that were answered."""
    return [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", text)]


PING = "ping -c 5 -i 0.2 -W 0.1 10.0.0.2"


def story(images: dict[str, str]) -> tuple[list[str], list[str], str]:
    """Pings under faults: what the nodes said, the hash, and the list of all that was sent."""
    with site(images) as made:
        said = []
        made.boot(*NODES)
        said += [made.exec("a", PING)]
        made.client.ask("rule", "third", "b.0", "in", "drop", "skip=2", "first=1", "--", "icmp")
        said += [made.exec("a", PING)]
        made.client.ask("cable", "b", 0, "out", "down")
        said += [made.exec("a", PING)]
        made.client.ask("cable", "b", 0, "up")
        made.client.ask("freeze", "b")
        made.later(5 * S)
        said += [made.exec("a", PING)]
        made.client.ask("thaw", "b")
        said += [made.exec("a", PING), made.exec("b", "date +%s.%N; cut -d' ' -f1 /proc/uptime")]
        made.cut_power("b")
        said += [made.exec("a", PING)]
        made.boot("b")
        said += [made.exec("a", PING), made.exec("b", "date +%s.%N; cut -d' ' -f1 /proc/uptime")]
        return said, made.client.ask("hash"), (made.home / "s/trace").read_text()


def test_kernels_do_the_same_again_beside_other_work(images: dict[str, str]) -> None:
    first = story(images)
    with busy():
        assert story(images) == first
    whole, without_third, cut, frozen, thawed, leapt, off, back, fresh = first[0]
    assert [answered(text) for text in (whole, without_third, cut, frozen, off)] == [
        [1, 2, 3, 4, 5], [1, 2, 4, 5], [], [], []
    ]  # fmt: skip
    assert [answered(text) for text in (thawed, back)] == [[1, 2, 3, 4, 5]] * 2
    clock, uptime = map(float, leapt.split()[:2])
    assert abs(clock - 1_800_000_000 - uptime) < 0.1, "its clock leapt over the time in which it was frozen"
    clock, uptime = map(float, fresh.split()[:2])
    assert clock - 1_800_000_000 > 10 > uptime + 5
