import json
import subprocess
from typing import cast

import pytest

from harness.fake import FakeLab
from harness.protocols import Node
from harness.records import Entry, LabError, Line, Output
from topology.lab import kernel
from topology.lab.node import DockerNode
from topology.lab.observers import ArpFeed, CpuFeed, OwnersFeed, PaceFeed, pace_ms
from topology.load import load
from topology.parts.ldirectord import settings


def test_a_directors_addresses_become_the_vips_it_holds() -> None:
    feed = OwnersFeed(FakeLab().node("lb-1"), ["203.0.113.101"])
    held, power = (
        next(iter(feed.entries(Line(7, json.dumps(seen)))))
        for seen in ({"addresses": ["198.18.1.11", "203.0.113.101"]}, {"power": "off"})
    )
    assert (held.process, held.f, held.value) == ("owners:lb-1", "holds", {"node": "lb-1", "vips": ["203.0.113.101"]})
    assert (power.process, power.f, power.value) == ("power:lb-1", "power", {"node": "lb-1", "power": "off"})


def test_an_arp_frame_keeps_the_time_of_the_wire_and_gets_its_nodes_name() -> None:
    feed = ArpFeed(FakeLab().switch, "internet", {"02:00:00:00:00:01": "lb-1"})
    seen = {
        "t": 5,
        "op": "request",
        "ip": "203.0.113.101",
        "mac": "02:00:00:00:00:01",
        "target": "x",
        "gratuitous": True,
    }
    (op,) = feed.entries(Line(9, json.dumps(seen)))
    assert (op.time_ns, op.value["node"]) == (5, "lb-1")
    (alive,) = feed.entries(Line(9, '{"t": 6, "alive": true}'))
    assert alive.value == {"alive": True}


def test_processor_time_is_in_ms_and_anything_else_is_an_unreadable_line() -> None:
    feed = CpuFeed(cast(DockerNode, FakeLab().node("lb-1")))
    (sample,) = feed.entries(Line(7, "12345678900\n"))
    assert sample == Entry(7, "cpu:lb-1", "info", "cpu", {"node": "lb-1", "used_ms": 12_346})
    for text in ("000", "0"):
        (none,) = feed.entries(Line(8, text))
        assert none.value == {"node": "lb-1", "used_ms": 0}
    for text in ("sh: read error", "", "-5", "1.5"):
        (broken,) = feed.entries(Line(9, text))
        assert broken == Entry(9, "cpu:lb-1", "info", "feed", text, "unreadable line")


def test_the_pace_of_the_machine_is_a_number_of_ms_and_anything_else_is_an_unreadable_line() -> None:
    feed = PaceFeed(FakeLab().switch)
    (sample,) = feed.entries(Line(7, "31.5\n"))
    assert sample == Entry(7, "pace:switch", "info", "pace", {"ms": 31.5})
    for text in ("", "0", "-3", "nan", "inf", "Traceback"):
        (broken,) = feed.entries(Line(9, text))
        assert broken == Entry(9, "pace:switch", "info", "feed", text, "unreadable line")


def test_the_pace_before_a_run_is_a_median_of_real_work() -> None:
    """The program itself, run here as it is run in the switch, but without its pauses."""

    class Here:
        def exec(self, *argv: str, **_: float) -> Output:
            shell, option, script, *more = argv
            command = [shell, option, "sleep() { :; }; " + script, *more]
            found = subprocess.run(command, capture_output=True, text=True, check=True)
            return Output(0, found.stdout, "")

    class Silent:
        def exec(self, *_: str, **__: float) -> Output:
            return Output(1, "", "no such program")

    assert pace_ms(cast(Node, Here())) > 0
    with pytest.raises(LabError, match="the speed of the machine cannot be measured"):
        pace_ms(cast(Node, Silent()))


def test_the_kernel_of_a_node_is_chosen_with_a_reason() -> None:
    machines = {machine.name: machine for machine in load("ultramonkey").machines}
    assert kernel.choose(machines["lb-1"], "amd64", lambda _: False).kernel == "uml"
    assert kernel.choose(machines["client"], "amd64", lambda _: True).kernel == "host"
    on_arm = kernel.choose(machines["lb-1"], "arm64", lambda _: True)
    assert on_arm.kernel == "host"
    assert "arm64" in on_arm.why
    with pytest.raises(
        LabError, match=r"web-1 needs its own kernel \(it mounts NFS\), but User-Mode Linux does not exist for arm64"
    ):
        kernel.choose(machines["web-1"], "arm64", lambda _: True, "it mounts NFS")
    with pytest.raises(LabError, match="lacks IPVS"):
        kernel.choose(machines["lb-1"], "arm64", lambda _: False)


LDIRECTORD_CF = """\
checktimeout=3
negotiatetimeout=4
checkinterval=2
quiescent=yes
virtual=203.0.113.101:80
	real=198.18.1.101:80 masq
	service=http
	scheduler=wlc
	persistent=300
	protocol=tcp
	checktype=negotiate
	failurecount=2
"""


def test_ldirectords_own_settings_are_read_back() -> None:
    assert settings(LDIRECTORD_CF) == {
        "check_interval_ms": 2000,
        "check_timeout_ms": 4000,
        "failure_count": 2,
        "checktype": "negotiate",
        "quiescent": True,
        "scheduler": "wlc",
        "persistence_s": 300,
    }


def test_a_check_that_only_connects_has_the_other_time_out() -> None:
    assert settings(LDIRECTORD_CF.replace("negotiate\n", "connect\n"))["check_timeout_ms"] == 3000


def test_what_ldirectord_cf_does_not_say_is_left_to_ldirectords_defaults() -> None:
    assert settings("") == {}
    found = settings("virtual=203.0.113.101:80\n\treal=198.18.1.101:80 masq\n\tprotocol=tcp\n")
    assert found == {"checktype": "negotiate", "quiescent": False, "scheduler": "wrr"}
