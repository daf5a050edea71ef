"""What each fault says that it does. A fault without a row here fails the first test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from faults import FAULTS
from harness.fake import FakeLab, FakeNode
from harness.records import Cable, Effect, EffectKind, Output
from harness.scenario import load

DIRECTORS = ("lb-1", "lb-2")
WEB = tuple(f"web-{number}" for number in range(1, 7))

FILES = {
    "web-1": {
        "/etc/monkeywrench/uploads-backup": "FOLDER=/srv/uploads\nTARGET=rsync://web-2/uploads\n",
        "/etc/monkeywrench/replicate.json": json.dumps(
            {"folder": "/var/www", "state": "/run/x", "targets": {"web-2": 1}}
        ),
    },
    "web-2": {
        "/etc/monkeywrench/uploads.mount": "web-1:/srv/uploads /var/www/uploads\n",
        "/etc/rsyncd.d/uploads-backup.conf": "path = /srv/backup\n",
    },
    "web-3": {"/etc/rsyncd.d/database-backup.conf": "path = /srv/backup\n"},
    "db": {"/etc/monkeywrench/database-backup": "FOLDER=/var/lib/mysql\nTARGET=rsync://web-3/database\n"},
}
"""How the parts of the topology tell a node what it is there for."""


def lab() -> FakeLab:
    """A lab with all data services, whose real servers have one cable each and whose directors have two."""
    made = FakeLab()
    made.cluster = replace(made.cluster, web=WEB)
    for name in WEB:
        made.add(FakeNode(made, name, "web"))
    made.add(FakeNode(made, "db", "db"))
    made.add(FakeNode(made, "resolver", "resolver"))
    lan = [*made.cluster.web, "db", *DIRECTORS]
    own = [
        Cable(f"{node}.lan0", node, "lan0", "lan", (f"10.0.0.{n}",), f"02:00:00:00:01:{n:02x}")
        for n, node in enumerate(lan)
    ]
    made.cables = (*made.cables, *own)
    for node in made.nodes():
        _has(node, FILES.get(node.name, {}))
    return made


def _has(node: Any, files: Mapping[str, str]) -> None:
    def answer(*argv: str, timeout_s: float = 10.0) -> Output:
        if argv[0] != "cat":
            return Output(0, "", "")
        return Output(0, files[argv[1]], "") if argv[1] in files else Output(1, "", "No such file or directory")

    node.exec = answer


NODE, CABLE = {"node": "web-4"}, {"cable": "web-4.lan0"}
APACHE = {"node": "web-4", "service": "apache"}
NEIGHBOUR = {"cable": "web-4.lan0", "address": "10.0.0.1"}

DOES: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "cluster.authkeys-changed",
        {"node": "lb-1"},
        ["changes-config lb-1", "doubles-address lb-1", "doubles-address lb-2"],
    ),
    ("cluster.both-directors", {}, ["node-down lb-1", "node-down lb-2"]),
    ("cluster.configuration-drift", {"node": "lb-1"}, ["changes-config lb-1 ldirectord"]),
    (
        "cluster.configuration-drift",
        {"node": "lb-1", "file": "ha.cf", "restart": True},
        ["changes-config lb-1 heartbeat", "restarts lb-1 heartbeat"],
    ),
    ("cluster.failback-during-recovery", {"node": "lb-1"}, ["doubles-address lb-1", "doubles-address lb-2"]),
    ("cluster.one-path-cut", {}, ["impairs-path lb-1", "impairs-path lb-2"]),
    ("cluster.rolling-maintenance", {"nodes": ["web-3", "web-4"]}, ["restarts web-3 apache", "restarts web-4 apache"]),
    ("cluster.rolling-restart", {}, ["restarts lb-1", "restarts lb-2"]),
    ("cluster.settle", {}, []),
    (
        "cluster.split-brain",
        {},
        ["doubles-address lb-1", "doubles-address lb-2", "impairs-path lb-1", "impairs-path lb-2"],
    ),
    ("data.backup-corrupted", {}, ["changes-data web-3"]),
    ("data.backup-corrupted", {"of": "uploads"}, ["changes-data web-2"]),
    ("data.backup-target-full", {}, ["exhausts web-3", "fails-writes web-3"]),
    ("data.database-frozen", {}, ["service-down db mariadb"]),
    ("data.database-killed", {}, ["service-down db mariadb"]),
    ("data.database-locked", {}, ["fails-writes db mariadb"]),
    ("data.database-out-of-connections", {}, ["exhausts db mariadb"]),
    ("data.database-power-cut", {}, ["node-down db"]),
    ("data.database-read-only", {}, ["fails-writes db mariadb"]),
    ("data.database-slow", {}, ["slows db mariadb"]),
    ("data.nfs-export-withdrawn", {}, ["changes-answers web-1 nfsd"]),
    ("data.nfs-other-fsid", {}, ["changes-answers web-1 nfsd"]),
    ("data.nfs-restarted", {}, ["restarts web-1 nfsd"]),
    ("data.nfs-stalled", {}, ["service-down web-1 nfsd"]),
    ("data.replication-interrupted", {}, ["changes-data web-1"]),
    ("data.replication-source-empty", {}, ["changes-data web-1"]),
    ("dns.frozen-order", {}, ["changes-answers resolver"]),
    ("dns.huge-ttl", {}, ["changes-answers resolver"]),
    ("dns.one-address", {}, ["changes-answers resolver"]),
    ("dns.refused", {}, ["changes-answers resolver"]),
    ("dns.servfail", {}, ["changes-answers resolver"]),
    ("dns.silent", {}, ["changes-answers resolver"]),
    ("dns.slow", {}, ["slows resolver"]),
    ("dns.truncated", {}, ["changes-answers resolver"]),
    ("dns.wrong-address", {}, ["changes-answers resolver"]),
    ("heartbeat.corrupt", {"sender": "lb-1"}, ["impairs-path lb-1"]),
    ("heartbeat.delay", {"sender": "lb-1"}, ["impairs-path lb-1"]),
    ("heartbeat.drop", {"sender": "lb-1"}, ["impairs-path lb-1"]),
    ("heartbeat.duplicate", {"sender": "lb-1"}, ["impairs-path lb-1"]),
    ("heartbeat.reorder", {"sender": "lb-1"}, ["impairs-path lb-1"]),
    ("heartbeat.replay", {"sender": "lb-1"}, ["impairs-path lb-1"]),
    ("network.corrupt", CABLE, ["impairs-path web-4"]),
    ("network.cut", CABLE, ["cuts-path web-4"]),
    ("network.cut", {"cable": "lb-1.lan0"}, ["impairs-path lb-1"]),
    ("network.cut", {**CABLE, "direction": "to"}, ["impairs-path web-4"]),
    ("network.cut", {**CABLE, "protocol": "icmp"}, ["impairs-path web-4"]),
    ("network.cut", {**CABLE, "protocol": "tcp", "port": 80}, ["impairs-path web-4"]),
    ("network.delay", CABLE, ["slows web-4"]),
    ("network.duplicate", CABLE, ["impairs-path web-4"]),
    ("network.duplicate-address", NEIGHBOUR, ["doubles-address web-4"]),
    ("network.flapping", CABLE, ["impairs-path web-4"]),
    ("network.jitter", CABLE, ["slows web-4"]),
    ("network.loss", CABLE, ["impairs-path web-4"]),
    ("network.lost-announcements", CABLE, ["misdirects web-4"]),
    ("network.mtu", CABLE, ["impairs-path web-4"]),
    (
        "network.partition",
        {"one": ["web-4"], "other": ["lb-1", "lb-2"]},
        ["impairs-path lb-1", "impairs-path lb-2", "impairs-path web-4"],
    ),
    (
        "network.partition",
        {"one": ["lb-1"], "other": ["lb-2", "web-4"], "mode": "bridge", "through": "web-4"},
        ["impairs-path lb-1", "impairs-path lb-2"],
    ),
    ("network.poisoned-arp", NEIGHBOUR, ["misdirects web-4"]),
    ("network.rate", CABLE, ["slows web-4"]),
    ("network.reject", CABLE, ["impairs-path web-4"]),
    ("network.reorder", CABLE, ["impairs-path web-4"]),
    ("network.stale-neighbour", NEIGHBOUR, ["misdirects web-4"]),
    ("network.unplugged", CABLE, ["cuts-path web-4"]),
    ("network.unplugged", {"cable": "lb-1.lan0"}, ["impairs-path lb-1"]),
    ("node.clock-drift", NODE, ["changes-clock web-4"]),
    ("node.clock-jump", NODE, ["changes-clock web-4"]),
    ("node.disk-errors", NODE, ["fails-writes web-4"]),
    ("node.disk-full", NODE, ["exhausts web-4", "fails-writes web-4"]),
    ("node.disk-read-only", NODE, ["fails-writes web-4"]),
    ("node.disk-slow", NODE, ["slows web-4"]),
    ("node.freeze", NODE, ["node-down web-4"]),
    ("node.host-name", NODE, ["changes-config web-4"]),
    ("node.out-of-memory", NODE, ["exhausts web-4"]),
    ("node.panic", NODE, ["node-down web-4"]),
    ("node.power-off", NODE, ["node-down web-4"]),
    ("node.reboot", NODE, ["restarts web-4"]),
    ("node.shutdown", NODE, ["node-down web-4"]),
    ("node.slow", NODE, ["slows web-4"]),
    ("process.down", APACHE, ["fails-check web-4 apache", "service-down web-4 apache"]),
    ("process.down", {"node": "web-4", "service": "gmond"}, ["service-down web-4 gmond"]),
    ("process.hang", APACHE, ["fails-check web-4 apache", "service-down web-4 apache"]),
    ("process.kill", APACHE, ["restarts web-4 apache"]),
    ("process.kill", {**APACHE, "restart": False}, ["fails-check web-4 apache", "service-down web-4 apache"]),
    ("process.restart-loop", APACHE, ["restarts web-4 apache"]),
    ("process.stop", APACHE, ["fails-check web-4 apache", "service-down web-4 apache"]),
    ("process.stop", {"node": "lb-1", "service": "heartbeat"}, ["service-down lb-1 heartbeat"]),
    ("real-server.error", NODE, ["changes-answers web-4 apache", "fails-check web-4 apache"]),
    ("real-server.error", {**NODE, "rate": 0.5}, ["changes-answers web-4 apache"]),
    ("real-server.no-php", NODE, ["changes-answers web-4 apache"]),
    ("real-server.partial", NODE, ["changes-answers web-4 apache"]),
    ("real-server.redirect", {**NODE, "to": "web-5"}, ["changes-answers web-4 apache"]),
    ("real-server.refuse", NODE, ["changes-answers web-4 apache", "fails-check web-4 apache"]),
    ("real-server.reset", NODE, ["changes-answers web-4 apache", "fails-check web-4 apache"]),
    ("real-server.slow", NODE, ["slows web-4 apache"]),
    ("real-server.stall", NODE, ["changes-answers web-4 apache", "fails-check web-4 apache"]),
    ("real-server.wrong-content", NODE, ["changes-answers web-4 apache", "fails-check web-4 apache"]),
]


def words(effect: Effect) -> str:
    return f"{effect.kind} {effect.node} {effect.service}".strip()


def test_every_fault_has_a_row() -> None:
    assert {name for name, _, _ in DOES} == set(FAULTS)


@pytest.mark.parametrize(("name", "settings", "does"), DOES)
def test_a_fault_says_what_it_does(name: str, settings: dict[str, Any], does: list[str]) -> None:
    assert sorted(map(words, FAULTS[name](**settings).effects(lab()))) == does


def test_a_node_alone_on_its_side_of_a_partition_reaches_no_other_node() -> None:
    effects = FAULTS["network.partition"](one=["web-4"]).effects(lab())
    assert [effect.node for effect in effects if effect.kind is EffectKind.CUTS_PATH] == ["web-4"]
    assert {effect.kind for effect in effects if effect.node != "web-4"} == {EffectKind.IMPAIRS_PATH}


SHIPPED = {
    "database-power-cut": {"db"},
    "director-freeze": {"lb-2"},
    "director-power-cut": {"lb-1"},
    "director-restart": {"lb-1"},
    "nfs-power-cut": {"web-1"},
    "power-cut": {"lb-1"},
    "real-server-crash": {"web-4"},
    "real-server-stall": {"web-4"},
    "real-server-wrong-content": {"web-4"},
}
"""Each shipped scenario whose faults take a node down, or make a real server fail its check -> those nodes."""

DOWN = {EffectKind.NODE_DOWN, EffectKind.CUTS_PATH, EffectKind.FAILS_CHECK}


@pytest.mark.parametrize(
    "path", [*Path("tests/chaos").glob("*.toml"), *Path("loadtests/profiles").glob("*.toml")], ids=str
)
def test_the_shipped_scenarios_take_down_what_they_say(path: Path) -> None:
    injects = [step for step in load(path).steps if step.inject]
    effects = [effect for step in injects for effect in FAULTS[step.inject or ""](**step.settings).effects(lab())]
    assert {effect.node for effect in effects if effect.kind in DOWN} == SHIPPED.get(path.stem, set())
