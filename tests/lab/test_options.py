"""The options of a topology, and files of the user's own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest

from tests.support.command import MONKEYWRENCH
from tests.support.faulty import eventually
from tests.support.site import VIPS, ask, page
from topology.lab import lifecycle
from topology.lab.docker_lab import DockerLab
from topology.load import load, shipped
from topology.model import Scheduler


@contextmanager
def booted(topology: Path) -> Iterator[DockerLab]:
    with lifecycle.booted(load(str(topology)), f"options-{os.getpid()}", print) as lab:
        yield lab


def changed(topology: Path, **values: str) -> Path:
    """The topology with the lines of some keys replaced."""
    text = topology.read_text()
    for key, line in values.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", line, text)
        assert count == 1, f"{key} stands {count} times in {topology}"
    topology.write_text(text)
    return topology


def test_the_same_cluster_with_direct_routing(tmp_path: Path) -> None:
    """The whole cluster, one line changed: requests come by the director, replies go past it."""
    whole = tmp_path / "gate.toml"
    whole.write_text(shipped()["ultramonkey"].read_text())
    with booted(changed(whole, forwarding='forwarding = "gate"')) as lab:
        assert lab.wait_healthy(180).healthy
        for vip in VIPS:
            assert ask(lab, vip, "/profile.php?player=3")["vip"] == vip
        assert " Route " in lab.node("lb-1").exec("ipvsadm", "-Ln").stdout
        replies = lab.node("lb-1").exec("ipvsadm", "-Ln", "--stats").stdout
        service = next(line.split() for line in replies.splitlines() if VIPS[0] in line)
        inward, outward = int(service[3]), int(service[4])
        assert inward > 0
        assert outward == 0  # no reply came back through the director
        assert len(eventually(lambda: claimants(lab, VIPS[0]), "an answer")) == 1  # only its director says so


def claimants(lab: DockerLab, vip: str) -> set[str]:
    """The hardware addresses that say on the client's segment that they have a VIP."""
    hears = lab.node("client").exec("arping", "-c", "3", "-I", "eth0", vip, timeout_s=30).stdout
    return set(re.findall(r"\[([0-9A-F:]{17})\]", hears, re.IGNORECASE))


def test_a_tunnel_with_every_other_option_turned_round(small_topology: Path) -> None:
    topology = changed(
        small_topology,
        forwarding='forwarding = "ipip"',
        scheduler='scheduler = "sh"\npersistence_s = 60',
        quiescent="quiescent = false",
        auto_failback="auto_failback = false",
        connection_sync="connection_sync = false",
    )
    with booted(topology) as lab:
        assert lab.wait_healthy(180).healthy
        nodes = {page_through(lab, VIPS[0]) for _ in range(8)}
        assert len(nodes) == 1  # persistent
        assert lab.node("lb-1").exec("ipvsadm", "-L", "--daemon").stdout.strip() == ""
        stays = nodes.pop()
        lab.node(stays).power_off()
        gone = lab.topology.machine(stays).addresses["lan"][0]

        def taken_out() -> bool:
            return f"-> {gone}:80" not in lab.node("lb-1").exec("ipvsadm", "-Ln").stdout

        assert eventually(taken_out, f"{stays} to be taken out, not only quiesced")
        assert page_through(lab, VIPS[0]) != stays


def page_through(lab: DockerLab, vip: str) -> str:
    """The node that serves it. One that is silent for long has not served it, and the client asks again."""

    def served() -> str:
        shown = lab.node("client").exec("curl", "-s", "-i", "--max-time", "10", f"http://{vip}/", timeout_s=20).stdout
        return next((line.split(": ")[1].strip() for line in shown.splitlines() if line.startswith("X-Node")), "")

    return eventually(served, f"a page through {vip}")


def test_every_scheduler_is_one_that_ipvs_has(lab: DockerLab) -> None:
    director, service = lab.node("lb-2"), "203.0.113.200:80"
    used = lab.topology.service.scheduler
    refused = {}
    for scheduler in get_args(Scheduler):
        loaded = director.exec("modprobe", f"ip_vs_{scheduler}")
        added = director.exec("ipvsadm", "-A", "-t", service, "-s", scheduler)
        director.exec("ipvsadm", "-D", "-t", service)
        if scheduler != used:
            director.exec("modprobe", "-r", f"ip_vs_{scheduler}")  # its settings would be left in /proc/sys
        if not (loaded.ok and added.ok):
            refused[scheduler] = loaded.stderr + added.stderr
    assert refused == {}


@pytest.fixture
def overlaid(small_topology: Path) -> Path:
    """A topology with an ha.cf of the user's that heartbeat accepts, though not all of it makes sense."""
    lines = ["# ours", "keepalive 500ms", "deadtime 3", "warntime 5", "initdead 10", "udpport 694"]
    lines += [f"ucast {eth} 198.18.{net}.{host}" for eth, net in (("eth2", 2), ("eth1", 1)) for host in (11, 12)]
    lines += ["logfile /var/log/ha-log", "auto_failback on", "realtime off", "node lb-1 lb-2", "crm no"]
    (small_topology.parent / "ha.cf").write_text("\n".join(lines) + "\n")
    site = small_topology.parent / "our-site"
    site.mkdir()
    (site / "alive").write_text("OK\n")
    (site / "index.html").write_text("our own page\n")
    overlays = [("director", "/etc/ha.d/ha.cf", "ha.cf"), ("web", "/srv/site", "our-site")]
    with small_topology.open("a") as file:
        for nodes, path, source in overlays:
            file.write(f'\n[[overlays]]\nnodes = "{nodes}"\npath = "{path}"\nsource = "{source}"\n')
    return small_topology


def test_the_doctor_warns_about_a_bad_ha_cf_with_its_line(overlaid: Path) -> None:
    seen = subprocess.run(
        [*MONKEYWRENCH, "doctor", "--topology", str(overlaid)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "400"},
    )
    assert seen.returncode == 0, seen.stdout + seen.stderr
    warning = next(line for line in seen.stdout.splitlines() if line.startswith("WARN"))
    assert f"{overlaid.parent}/ha.cf:4" in warning
    assert "warntime" in warning
    assert "lb-1, lb-2" in warning


def test_a_lab_boots_with_the_users_own_files(overlaid: Path) -> None:
    with booted(overlaid) as lab:
        assert lab.wait_healthy(180).healthy
        assert "warntime 5" in lab.node("lb-2").exec("cat", "/etc/ha.d/ha.cf").stdout
        assert page(lab, "web-1", "/") == "our own page\n"
        assert not lab.node("web-1").exec("test", "-e", "/srv/site/rules.html").ok  # the folder stands there alone
