"""Machines: kernels of their own, power that is really cut, and a control channel that no lab network can cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.records import LabError, Power
from tests.support.faulty import eventually
from topology.lab.docker_lab import DockerLab


def test_cluster_nodes_have_kernels_of_their_own_and_status_says_why(lab: DockerLab) -> None:
    status = lab.status()
    host = lab.node("client").exec("uname", "-r").stdout.strip()
    for node in status.nodes:
        assert node.why
        assert node.power is Power.RUNNING
        if node.kernel == "uml":
            assert lab.node(node.name).exec("uname", "-r").stdout.strip() == node.kernel_release != host
    assert {node.name for node in status.nodes if node.kernel == "host"} == {"client"}


def test_init_is_process_one_and_reaps(lab: DockerLab) -> None:
    node = lab.node("web-1")
    assert node.exec("cat", "/proc/1/comm").stdout.strip() == "runit"
    # an orphan is init's child, and is gone once it ends
    node.exec("sh", "-c", "setsid sh -c 'sleep 0.2' > /dev/null 2>&1 &")
    assert node.exec("sleep", "1").ok

    def none_left() -> bool:
        return node.exec("sh", "-c", "ps axo stat= | grep -c '^Z' || true").stdout.strip() == "0"

    assert eventually(none_left, "the orphan to be reaped", 30)


def test_a_service_that_dies_is_started_again(lab: DockerLab) -> None:
    node = lab.node("resolver")

    def process() -> str:
        """As its supervisor says: ``run: /run/service/resolver: (pid 84) 12s``; nothing while there is none."""
        status = node.exec("sv", "status", "/run/service/resolver").stdout
        return status.split("(")[1].split(")")[0] if status.startswith("run:") else ""

    before = process()
    node.exec("pkill", "-KILL", "-f", "resolver.py")
    assert before
    assert eventually(lambda: process() not in {"", before}, "another process", 60)


@pytest.fixture
def disk(lab: DockerLab) -> Iterator[str]:
    """An ext4 file system on web-6; its root is a hostfs, which writes through and so has nothing to lose."""
    node, image = lab.node("web-6"), "/srv/disk"
    made = f"truncate -s 16M {image} && mkfs.ext4 -q -F {image} && modprobe loop"
    made += f" && mkdir -p /mnt && mount -o loop {image} /mnt"
    assert node.exec("sh", "-c", made, timeout_s=60).ok
    yield image
    node.exec("sh", "-c", f"umount /mnt; rm -f {image}")


def test_a_power_cut_loses_what_was_not_flushed_and_keeps_what_was(lab: DockerLab, disk: str) -> None:
    node = lab.node("web-6")
    node.exec("sh", "-c", "echo kept > /mnt/flushed; sync; echo gone > /mnt/lost")
    assert node.exec("cat", "/mnt/lost").stdout == "gone\n"
    cut_ns = node.power_off()
    assert node.power() is Power.OFF
    assert cut_ns <= lab.now_ns()
    assert node.power_off() == cut_ns  # off already: the same cut
    with pytest.raises(LabError, match="web-6: the machine is off"):
        node.exec("true")
    node.boot()
    node.boot()  # runs already: nothing happens
    assert node.exec("sh", "-c", f"modprobe loop && mount -o loop {disk} /mnt").ok
    assert node.exec("cat", "/mnt/flushed").stdout == "kept\n"
    assert not node.exec("test", "-s", "/mnt/lost").ok


def test_a_power_cut_asks_nobody_and_a_shutdown_asks_everybody(lab: DockerLab) -> None:
    node = lab.node("web-6")
    script = b"#!/bin/sh\ntrap 'echo asked > /srv/asked; exit' TERM\nwhile :; do sleep 0.1; done\n"
    node.put("/srv/asked.run", script, 0o755)
    service = "mkdir -p /run/service/asked && cp /srv/asked.run /run/service/asked/run"
    for end, asked in ((node.power_off, False), (node.shutdown, True)):
        assert node.exec("sh", "-c", f"rm -f /srv/asked; {service}").ok
        assert eventually(lambda: node.exec("sv", "check", "/run/service/asked").ok, "the service to run")
        end()
        node.boot()
        assert node.exec("test", "-e", "/srv/asked").ok is asked
    node.exec("rm", "-f", "/srv/asked", "/srv/asked.run")


def test_a_shutdown_is_idempotent(lab: DockerLab) -> None:
    node = lab.node("web-6")
    node.shutdown()
    node.shutdown()
    assert node.power() is Power.OFF
    node.boot()


def test_a_frozen_machine_stands_still_and_goes_on(lab: DockerLab) -> None:
    node = lab.node("web-6")
    node.freeze()
    node.freeze()
    assert node.power() is Power.FROZEN
    with pytest.raises(LabError, match="frozen"):
        node.exec("true")
    with pytest.raises(LabError, match="cannot shut down"):
        node.shutdown()
    node.thaw()
    node.thaw()
    assert node.exec("echo", "on").stdout == "on\n"


def test_a_panic_stays_down_until_power_on(lab: DockerLab) -> None:
    node = lab.node("web-6")
    node.panic()
    assert node.power() is Power.PANICKED
    node.panic()
    node.boot()
    assert node.power() is Power.RUNNING


def test_a_node_that_does_not_boot_shows_the_end_of_its_console(lab: DockerLab) -> None:
    node = lab.node("web-6")
    node.chassis_exec("cp", "-a", "/sbin/runit", "/sbin/runit.saved")
    node.power_off()
    try:
        node.chassis_exec("chmod", "644", "/sbin/runit")
        with pytest.raises(LabError) as caught:
            node.boot()
        assert "web-6: boot failed" in str(caught.value)
        assert "Kernel panic" in str(caught.value)
        assert caught.value.next_step
    finally:
        node.chassis_exec("mv", "/sbin/runit.saved", "/sbin/runit")
        node.boot()


def test_no_lab_network_is_needed_to_control_a_node(lab: DockerLab) -> None:
    node = lab.node("web-6")
    assert node.exec("ip", "link", "set", "eth0", "down").ok
    try:
        assert node.exec("echo", "still here").stdout == "still here\n"
    finally:
        node.power_off()
        node.boot()


def test_a_watch_goes_on_across_a_power_cut(lab: DockerLab) -> None:
    node = lab.node("web-6")
    watch = node.watch()
    lines = iter(watch)

    def next_power() -> str:
        return str(next(seen["power"] for line in lines if "power" in (seen := json.loads(line.text))))

    assert next_power() == "running"
    node.power_off()
    assert next_power() == "off"
    node.boot()
    assert [next_power(), next_power()] == ["booting", "running"]
    addresses = next(seen["addresses"] for line in lines if "addresses" in (seen := json.loads(line.text)))
    assert addresses == ["198.18.1.106", "198.18.1.206"]
    watch.stop()


def test_output_of_any_size_arrives_whole(lab: DockerLab) -> None:
    for name in ("web-1", "client"):
        done = lab.node(name).exec("seq", "1", "60000", timeout_s=30)
        assert done.stdout == "".join(f"{number}\n" for number in range(1, 60001))
    long = "x" * 20000  # far more than a serial port's line discipline holds
    assert lab.node("web-1").exec("echo", long).stdout == long + "\n"


def test_a_command_that_takes_too_long_is_ended(lab: DockerLab) -> None:
    node = lab.node("web-1")
    with pytest.raises(LabError, match="timed out after 1 s"):
        node.exec("sleep", "4321", timeout_s=1)
    assert eventually(lambda: node.exec("pgrep", "-f", "^sleep 4321").exit_code == 1, "it to be gone", 60)


def test_an_unknown_command_is_a_sentence(lab: DockerLab) -> None:
    with pytest.raises(LabError, match="web-1: cannot run no-such-program: No such file or directory"):
        lab.node("web-1").exec("no-such-program")


def test_of_many_requests_none_is_forgotten(lab: DockerLab) -> None:
    """A serial port of User-Mode Linux misses input now and then; without a nudge one of some hundred requests hung."""
    names = ["lb-1", "lb-2", "web-1", "resolver"]

    def ask(name: str) -> int:
        node = lab.node(name)
        return sum(bool(node.exec("echo", str(number), timeout_s=20).stdout) for number in range(300))

    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        assert list(pool.map(ask, names)) == [300] * len(names)
