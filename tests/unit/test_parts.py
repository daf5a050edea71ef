"""How each part judges its answers: as the real programs print them, then with one thing wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from harness.formats import ipvsadm
from harness.protocols import Node
from harness.records import NodeStatus, Output, Power, RealServer, StaleNeighbour
from harness.wait import REAL
from tests.support.site import VIPS, WEB
from topology import status
from topology.files import files_of, secrets
from topology.load import load, parse, shipped
from topology.model import Topology
from topology.parts import PARTS, ganglia, parts_of, real_servers, variable_data, virtual_service
from topology.parts.boot_scripts import BootScripts
from topology.parts.part import Observations

Answers = dict[str, dict[str, str]]


def weight_1(_vip: str, _node: str) -> int:
    return 1


def ipvs(topology: Topology, weight: Callable[[str, str], int] = weight_1) -> str:
    service = topology.service
    text = "IP Virtual Server version 1.2.1 (size=256)\nProt LocalAddress:Port Scheduler Flags\n"
    text += "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
    for position, vip in enumerate(topology.vips):
        sticky = f" persistent {service.persistence_s}" if service.persistence_s else ""
        text += f"TCP  {vip.address}:80 {service.scheduler}{sticky}\n"
        for web in topology.of_role("web"):
            address = f"{web.addresses['lan'][position]}:80"
            forward = ipvsadm.FORWARDING[service.forwarding]
            text += f"  -> {address:28} {forward:7} {weight(str(vip.address), web.name):<6} 3          11        \n"
    sync = "master sync daemon (mcast=eth2, syncid=1, maxlen=1464)\nbackup sync daemon (mcast=eth2, syncid=2)\n"
    return f"{text}{virtual_service.SYNC}\n{sync}"


def hosts(tn_s: dict[str, int]) -> str:
    return "".join(
        f'<HOST NAME="{name}" IP="198.18.1.10" TAGS="" REPORTED="17" TN="{tn}" TMAX="20" DMAX="3600" METRICS="21">\n'
        for name, tn in tn_s.items()
    )


LINK = "1: lo: <LOOPBACK,UP> mtu 65536 link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n"
MACS = {"lb-1": "02:00:00:00:00:0b", "lb-2": "02:00:00:00:00:0c"}


def neighbours(owners: dict[str, str]) -> str:
    known = "".join(f"{address} dev eth0 lladdr {MACS.get(name, name)} REACHABLE\n" for address, name in owners.items())
    return f"{known}198.18.1.77 dev eth0  FAILED\n"


def healthy_answers(topology: Topology) -> Answers:
    backup = '42\n18\n{"began": 1795390293, "files": 3}\n'
    account = {"rounds": 2, "transfers": 10, "pending": False, "lag_s": 1.25, "failed": [], "problems": ""}
    health = json.dumps({"node": "web", "database": "ok", "uploads": "ok"})
    table = ipvs(topology)
    heard = hosts(dict.fromkeys(WEB, 17))
    return {
        "DNS round robin": {"client": json.dumps([VIPS, VIPS[::-1]])},
        "Linux Directors": {
            "lb-1": f"{LINK}2: eth0: <UP> mtu 1500 link/ether {MACS['lb-1']} brd ff:ff:ff:ff:ff:ff\n",
            "lb-2": f"{LINK}2: eth0: <UP> mtu 1500 link/ether {MACS['lb-2']} brd ff:ff:ff:ff:ff:ff\n",
            "client": neighbours({VIPS[0]: "lb-1", VIPS[1]: "lb-2"}),
            "web-3": neighbours({"198.18.1.1": "lb-1", "198.18.1.2": "lb-2", "198.18.1.12": "lb-2"}),
        },
        "virtual service": {"lb-1": table, "lb-2": table},
        "heartbeat": dict.fromkeys(("lb-1", "lb-2"), "heartbeat is running on lb [lb]...\nactive\n"),
        "ldirectord": {"lb-1": "1\n", "lb-2": "1\n"},
        "real servers": {**dict.fromkeys(WEB, health), "client": json.dumps(dict.fromkeys(VIPS, "web-4"))},
        "web data": {**dict.fromkeys(WEB, "d41d8c\n"), "web-1": f"d41d8c\n{json.dumps(account)}"},
        "variable data": {**dict.fromkeys(WEB, "nfs\n"), "web-1": "ext2/ext3\n", "web-2": f"nfs\n{backup}"},
        "MySQL": {"db": "10.11.19-MariaDB\t7\n", "web-3": backup},
        "Ganglia": {**dict.fromkeys(WEB, heard), "lb-1": heard},
    }


def healthy(topology: Topology | None = None) -> Observations:
    topology = topology or load("ultramonkey")
    power = {machine.name: Power.RUNNING for machine in topology.machines}
    addresses = {"lb-1": ("198.18.1.11", "198.18.1.1", VIPS[0]), "lb-2": ("198.18.1.12", "198.18.1.2", VIPS[1])}
    return Observations(topology, power, addresses, healthy_answers(topology))


JUDGED = [part.name for part in parts_of(load("ultramonkey")) if part.name != "Linux Directors"]


def but(part: str, **answers: str | None) -> Observations:
    """A healthy cluster in which some nodes answer otherwise, or not at all, to the question of one part."""
    seen = healthy()
    given = dict(seen.answers[part])
    for key, answer in answers.items():
        node = key.replace("_", "-")
        if answer is None:
            given.pop(node)
        else:
            given[node] = answer
    return replace(seen, answers={**seen.answers, part: given})


def problems(seen: Observations) -> list[str]:
    return list(status.judge(seen, []).problems)


def test_a_healthy_cluster_has_every_part_and_no_problems() -> None:
    found = status.judge(healthy(), [])
    assert [part.name for part in found.parts] == list(healthy_answers(load("ultramonkey")))
    assert found.problems == ()
    assert all(part.seen for part in found.parts)
    json.dumps([dict(part.facts) for part in found.parts])  # facts are what JSON can hold


@pytest.mark.parametrize(
    ("node", "address", "other"),
    [("client", VIPS[1], "lb-1"), ("web-3", "198.18.1.1", "lb-2"), ("client", VIPS[0], "02:00:00:00:00:99")],
)
def test_a_stale_neighbour_entry_is_a_problem(node: str, address: str, other: str) -> None:
    """Both directors forward, so it has no effect until the other one loses power."""
    seen = but("Linux Directors", **{node.replace("-", "_"): neighbours({address: other})})
    sends = f"it sends packets for {address} to {other}, which does not hold it"
    assert problems(seen) == [f"{node} has a stale ARP entry: {sends}"]
    assert status.judge(seen, []).stale_neighbours == (StaleNeighbour(node, address, other),)


@pytest.mark.parametrize("holders", [(), ("lb-1", "lb-2")])
def test_a_neighbour_entry_for_an_address_without_one_owner_is_not_judged(holders: tuple[str, ...]) -> None:
    seen = but("Linux Directors", client=neighbours({VIPS[0]: "lb-2"}))
    held = {name: (VIPS[0],) if name in holders else () for name in ("lb-1", "lb-2")}
    assert status.judge(replace(seen, addresses=held), []).stale_neighbours == ()


@pytest.mark.parametrize("part", JUDGED)
def test_no_part_is_healthy_without_answers(part: str) -> None:
    seen = healthy()
    assert problems(replace(seen, answers={**seen.answers, part: {}})) != []


@pytest.mark.parametrize("part", JUDGED)
@pytest.mark.parametrize("garbage", ["", "\n", "x", "null", "[1]", "{}", '"', "0\n0\n0\n", "\x00\n\x00"])
def test_garbage_is_a_problem_and_not_a_traceback(part: str, garbage: str) -> None:
    seen = healthy()
    given = dict.fromkeys(seen.answers[part], garbage)
    assert problems(replace(seen, answers={**seen.answers, part: given})) != []


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (but("DNS round robin", client=json.dumps([[VIPS[0]], VIPS])), f"the resolver answers {VIPS[0]} for www"),
        (but("DNS round robin", client="[[], []]"), "the resolver answers nothing"),
        (but("virtual service", lb_2="--\n"), f"lb-2: virtual service {VIPS[0]}:80 is missing"),
        (but("heartbeat", lb_1="heartbeat is stopped.\n"), "heartbeat is not running on lb-1"),
        (but("heartbeat", lb_1="heartbeat is running\ndead\n"), "heartbeat on lb-1 sees lb-2 as dead"),
        (but("ldirectord", lb_2="0\n"), "ldirectord is not running on lb-2"),
        (but("real servers", web_5=None), "the site on web-5 does not answer (is Apache running?)"),
        (
            but("real servers", web_5='{"database": "no connection", "uploads": "ok"}'),
            "the site on web-5 cannot use its database: no connection",
        ),
        (but("real servers", client=json.dumps({VIPS[0]: None, VIPS[1]: "web-1"})), f"does not answer at {VIPS[0]}"),
        (but("web data", web_4="other\n"), "the site's folder on web-4 differs from web-1"),
        (but("web data", web_1=None), "master web-1 does not answer"),
        (but("web data", web_1="d41d8c\n"), "reports no state"),
        (but("web data", web_1="d41d8c\n[1]"), "reports no state"),
        (but("variable data", web_6="ext2/ext3\n"), "/srv/uploads on web-6 is ext2/ext3 instead of an NFS mount"),
        (but("variable data", web_6="silent\n"), "/srv/uploads on web-6 does not answer"),
        (but("variable data", web_2="nfs\n999\n181\n{}\n"), "the backup of the uploads on web-2 is 181 s old"),
        (but("variable data", web_2="nfs\n999\n"), "the backup of the uploads on web-2 does not exist"),
        (but("MySQL", db="ERROR 2002 (HY000): Can't connect"), "the database on db does not answer"),
        (but("MySQL", web_3="300\n"), "the backup of the database on web-3 does not exist"),
        (but("Ganglia", lb_1=hosts({**dict.fromkeys(WEB, 17), "web-3": 80})), "gmetad on lb-1 does not see web-3"),
        (but("Ganglia", lb_1=hosts(dict.fromkeys(WEB, 17)).replace('"21"', '"0"', 1)), "has no metrics of web-1"),
        (but("Ganglia", web_2=hosts(dict.fromkeys(WEB[1:], 1))), "gmond on web-2 does not see web-1"),
    ],
)
def test_each_failure_has_exactly_one_sentence(seen: Observations, sentence: str) -> None:
    first, *rest = problems(seen)
    assert sentence in first
    assert all(line.startswith("lb-2") for line in rest)  # an empty table is a problem of ldirectord, too


def test_a_vip_with_two_owners_no_owner_or_away_from_home() -> None:
    seen = but("Linux Directors", client="")
    both = replace(seen, addresses={"lb-1": tuple(VIPS), "lb-2": (VIPS[1],)})
    assert problems(both) == [f"{VIPS[1]} is held by lb-1 and lb-2 instead of lb-2"]
    away = replace(seen, addresses={"lb-1": tuple(VIPS), "lb-2": ()})
    assert problems(away) == [f"{VIPS[1]} is held by lb-1 instead of lb-2"]
    none = replace(seen, addresses={"lb-1": (VIPS[0],), "lb-2": ()})
    assert problems(none) == [f"{VIPS[1]} is held by no director; its home is lb-2"]


def test_without_auto_failback_either_director_may_hold_a_vip() -> None:
    text = shipped()["ultramonkey"].read_text().replace("auto_failback = true", "auto_failback = false")
    seen = replace(but("Linux Directors", client=""), topology=parse(text, "my.toml"))
    assert problems(replace(seen, addresses={"lb-1": tuple(VIPS), "lb-2": ()})) == []
    assert problems(replace(seen, addresses={"lb-1": tuple(VIPS), "lb-2": (VIPS[1],)})) == [
        f"{VIPS[1]} is held by lb-1 and lb-2 instead of one director"
    ]


def test_a_quiesced_server_is_named_with_its_director_and_vip() -> None:
    topology = load("ultramonkey")
    table = ipvs(topology, lambda vip, node: 0 if (vip, node) == (VIPS[1], "web-3") else 1)
    assert problems(but("virtual service", lb_2=table)) == [f"lb-2 sends no connections for {VIPS[1]} to web-3"]


def test_a_table_that_differs_from_the_topology() -> None:
    text = shipped()["ultramonkey"].read_text()
    wanted = text.replace('scheduler = "wlc"', 'scheduler = "rr"\npersistence_s = 60').replace('"masq"', '"gate"')
    seen = replace(healthy(), topology=parse(wanted, "my.toml"))
    lines = [line for line in problems(seen) if line.startswith("lb-1:")]
    assert lines == [
        f"lb-1: {VIPS[0]}:80 uses scheduler wlc instead of rr",
        f"lb-1: {VIPS[0]}:80 has no persistence instead of persistence 60 s",
        f"lb-1: {VIPS[1]}:80 uses scheduler wlc instead of rr",
        f"lb-1: {VIPS[1]}:80 has no persistence instead of persistence 60 s",
        "lb-1: requests are forwarded with Masq instead of Route",
    ]
    assert problems(healthy(parse(wanted, "my.toml"))) == []


def test_a_node_that_is_off_is_a_single_problem() -> None:
    seen = healthy()
    power = {**seen.power, "web-5": Power.OFF}
    answers = {part: {n: a for n, a in given.items() if n != "web-5"} for part, given in seen.answers.items()}
    off = NodeStatus("web-5", "web", Power.OFF, "uml", "", "")
    found = status.judge(replace(seen, power=power, answers=answers), [off])
    assert found.problems == ("web-5 is off",)  # ldirectord has not noticed yet in these tables


def test_the_questions_for_a_node_are_one_script_whose_output_is_split_by_part() -> None:
    asked = {"one": "echo 1", "two words": "printf 'a\\nb'", "none": "true"}
    text = status.script(asked)
    assert text.count(status.MARK) == 3
    given = f"{status.MARK}one\n1\n{status.MARK}two words\na\nb{status.MARK}none\n"
    assert status.answers(given) == {"one": "1\n", "two words": "a\nb", "none": ""}
    assert status.answers("noise") == {}


def test_an_ipvs_table_is_read_as_ipvsadm_prints_it() -> None:
    printed = """\
TCP  203.0.113.101:80 wlc persistent 360
  -> 198.18.1.101:80              Masq    1      3          11
  -> 198.18.1.102:80              Masq    0      0          2
TCP  203.0.113.102:80 wlc
"""
    assert virtual_service.parse_ipvs(printed, {"198.18.1.101": "web-1", "198.18.1.102": "web-2"}) == {
        "203.0.113.101:80": (
            RealServer("198.18.1.101", "web-1", 1, 3, 11),
            RealServer("198.18.1.102", "web-2", 0, 0, 2),
        ),
        "203.0.113.102:80": (),
    }


def test_a_host_is_down_at_four_times_tmax() -> None:
    assert [host.up for host in ganglia.parse_hosts(hosts({"web-1": 79, "web-2": 80}))] == [True, False]
    assert ganglia.parse_hosts('<GRID NAME="x">\n<HOST NAME="broken">\n') == [ganglia.Host("broken", -1, 0)]
    assert not ganglia.Host("broken", -1, 0).up


def test_a_first_backup_that_is_not_due_yet_is_not_a_problem() -> None:
    assert variable_data.backup_problem({"up_s": 30}, 60) == ""
    assert variable_data.backup_line({"up_s": 30}) == "no backup yet"
    assert variable_data.parse_backup("42\n18\nnot json\n") == {"up_s": 42, "age_s": 18}


def test_the_site_knows_the_vip_of_each_address_and_where_its_data_is() -> None:
    topology = load("ultramonkey")
    settings = real_servers.site_settings(topology, topology.machine("web-2"), secrets("key"))
    assert settings["vips"] == {"198.18.1.102": VIPS[0], "198.18.1.202": VIPS[1]}
    assert settings["database"]["host"] == "198.18.1.31"
    assert settings["uploads"] == "/srv/uploads"


def test_every_log_of_a_part_is_declared_by_it() -> None:
    topology = load("ultramonkey")
    declared = {
        (machine.role, log.service): log.is_exact
        for machine in topology.machines
        for part in PARTS
        for log in part.logs(topology, machine)
    }
    assert declared == {("director", "heartbeat"): True, ("director", "ldirectord"): False, ("web", "apache"): False}


@dataclass
class Director:
    """A director that prints its files, and whose resource scripts answer at once."""

    name: str
    clock = REAL

    def exec(self, *argv: str, **_: float) -> Output:
        topology = load("ultramonkey")
        files = files_of(topology, topology.machine(self.name), "lab", "key")
        return Output(0, next((file.data.decode() for file in files if file.path == argv[-1]), ""), "")


def test_the_parts_know_the_facts_of_the_cluster() -> None:
    topology = load("ultramonkey")
    directors = {name: cast(Node, Director(name)) for name in ("lb-1", "lb-2")}
    facts: dict[str, Any] = {}
    for part in PARTS:
        facts |= part.cluster_facts(topology, directors)
    assert facts == {
        "resolver": "203.0.113.53",
        "connection_sync": True,
        "keepalive_ms": 500,
        "deadtime_ms": 3000,
        "auto_failback": True,
        "resources_per_vip": 2,
        "peer_dead": "node {node}: is dead",
        "resource_start_ms": 2_500,
        "check_interval_ms": 2000,
        "check_timeout_ms": 3000,
        "checktype": "negotiate",
        "quiescent": True,
        "scheduler": "wlc",
    }


@dataclass
class OwnFiles(Director):
    """A director with files of the user's own."""

    own: dict[str, str]

    def exec(self, *argv: str, **timeouts: float) -> Output:
        if argv[-1] in self.own:
            return Output(0, self.own[argv[-1]], "")
        return super().exec(*argv, **timeouts)


def configured(own: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What the files of lb-1 say; lb-2 has those of the topology."""
    topology = load("ultramonkey")
    directors = {"lb-1": cast(Node, OwnFiles("lb-1", own)), "lb-2": cast(Node, Director("lb-2"))}
    found: dict[str, dict[str, Any]] = {"lb-1": {}, "lb-2": {}}
    for part in PARTS:
        for name, settings in part.configured(topology, directors).items():
            found[name] |= settings
    return found


def test_the_files_of_each_director_are_read_back() -> None:
    topology = load("ultramonkey")
    promised: dict[str, Any] = {}
    for part in PARTS:
        promised |= part.cluster_facts(topology, {"lb-2": cast(Node, Director("lb-2"))})
    found = configured({})
    assert found["lb-1"] == found["lb-2"]
    assert found["lb-1"].items() >= {"deadtime_ms": 3000, "check_interval_ms": 2000, "failure_count": 1}.items()
    assert {key: value for key, value in found["lb-1"].items() if key in promised and promised[key] != value} == {}


def test_a_file_of_the_users_changes_what_is_configured_and_not_what_is_promised() -> None:
    own = {
        "/etc/ha.d/ha.cf": "keepalive 1\ndeadtime 12\nauto_failback off\nnode lb-1 lb-2\n",
        "/etc/ha.d/ldirectord.cf": "virtual=203.0.113.101:80\n\treal=198.18.1.101:80 masq\n\tcheckinterval=60\n",
    }
    found = configured(own)
    expected = {"keepalive_ms": 1000, "deadtime_ms": 12_000, "auto_failback": False, "check_interval_ms": 60_000}
    assert found["lb-1"].items() >= expected.items()
    assert found["lb-1"]["check_timeout_ms"] == 30_000  # ldirectord's own default
    assert found["lb-2"]["deadtime_ms"] == 3000
    directors = {"lb-1": cast(Node, OwnFiles("lb-1", own))}
    facts: dict[str, Any] = {}
    for part in PARTS:
        facts |= part.cluster_facts(load("ultramonkey"), directors)
    assert (facts["deadtime_ms"], facts["check_interval_ms"], facts["auto_failback"]) == (3000, 2000, True)


def test_a_boot_script_that_fails_is_a_problem() -> None:
    topology = load("ultramonkey")
    part = BootScripts()
    assert not part.enabled(topology)
    names = [machine.name for machine in topology.machines]
    power = dict.fromkeys(names, Power.RUNNING)
    answers = dict.fromkeys(names, "done\n")
    assert not part.judge(Observations(topology, power, {}, {part.name: answers})).problems
    answers |= {"web-1": "done\n/etc/monkeywrench/boot.d/mine failed with exit code 3\n", "web-2": ""}
    found = part.judge(Observations(topology, {**power, "web-3": Power.OFF}, {}, {part.name: answers})).problems
    assert found == (
        "web-1: boot script /etc/monkeywrench/boot.d/mine failed with exit code 3",
        "web-2: no report of its boot scripts",
    )
