"""The cluster in the lab: what the original would do, the lab does."""

from __future__ import annotations

import json
import subprocess
import uuid
from itertools import pairwise
from pathlib import Path

import pytest

from harness.protocols import Node
from harness.records import LabError, Output
from harness.wait import NotYet, until
from tests.support.command import MONKEYWRENCH, healthy_status
from tests.support.faulty import eventually
from tests.support.site import VIPS
from topology.lab.docker_lab import DockerLab
from topology.lab.observers import COLLECTOR

PIECES = """
. /etc/ha.d/shellfuncs
HA_FIFO=/tmp/pieces
rm -f $HA_FIFO && mkfifo $HA_FIFO
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    ha_clustermsg <<-MESSAGE &
	t=ip-request-resp
	ok=OK
	MESSAGE
    dd if=$HA_FIFO bs=4096 count=1 status=none | wc -c
    wait
done
"""
"""What one read gets of each of twenty messages, in bytes."""


def curl(lab: DockerLab, *what: str) -> Output:
    """A request of the client."""
    return lab.node("client").exec("curl", "-s", "--max-time", "20", *what, timeout_s=30)


def test_each_director_holds_its_own_vip_and_both_tables_are_whole(lab: DockerLab) -> None:
    assert lab.wait_healthy(180).owners == {VIPS[0]: ("lb-1",), VIPS[1]: ("lb-2",)}
    whole = {f"web-{number}": 1 for number in range(1, 7)}

    def all_whole() -> bool:
        """A real server that stood still for some seconds is quiesced, and taken back."""
        tables = lab.status().ipvs
        services = [tables.get(director, {}).get(f"{vip}:80", ()) for director in ("lb-1", "lb-2") for vip in VIPS]
        found = [{server.node: server.weight for server in servers} for servers in services]
        if found != [whole] * 4:
            raise NotYet(str(found))
        return True

    assert eventually(all_whole, "both tables to be whole")


@pytest.mark.parametrize("director", ["lb-1", "lb-2"])
def test_the_witness_of_a_table_sees_what_ipvsadm_shows(lab: DockerLab, director: str) -> None:
    for vip in VIPS * 3:
        curl(lab, f"http://{vip}/")
    wanted = json.dumps([{"what": "table", "every_s": 60, "nodes": {}}])
    look = f"timeout 5 python3 -IS {COLLECTOR} '{wanted}'; ipvsadm -Ln --stats --exact; echo --; ipvsadm -Ln"

    def agree() -> bool:
        """Both look at almost the same moment: a connection that ends in between is another number."""
        witnessed, printed = lab.node(director).exec("sh", "-c", look, timeout_s=60).stdout.split("\n", 1)
        if not witnessed.startswith("{"):
            raise NotYet(witnessed)
        counted, weighed = (
            [line.split() for line in table.splitlines() if line.startswith("  -> 198.")]
            for table in printed.split("--")
        )
        shown = {
            (server, int(weight), int(active), int(inactive), int(conns))
            for (_, server, _, weight, active, inactive), (_, _, conns, *_) in zip(weighed, counted, strict=True)
        }
        seen = {
            (f"{server}:80", row["weight"], row["active"], row["inactive"], row["conns"])
            for rows in json.loads(witnessed)["value"]["vips"].values()
            for server, row in rows.items()
        }
        return len(seen) == 12 and max(conns for *_, conns in seen) > 0 and seen == shown

    assert eventually(agree, f"the witness and ipvsadm to agree on {director}", 180)


def test_the_clients_address_arrives_at_the_real_servers(lab: DockerLab) -> None:
    """Masq without hiding the client: replies leave through the gateway of the VIP that the request came by."""
    for vip in VIPS:
        request = uuid.uuid4().hex
        page = curl(lab, "-i", f"http://{vip}/?{request}")
        node = next(line.split(": ")[1] for line in page.stdout.splitlines() if line.startswith("X-Node"))
        assert f"<strong>{node.strip()}</strong>" in page.stdout
        log = lab.node(node.strip())

        def logged(log: Node = log, request: str = request) -> str:
            return log.exec("grep", request, "/var/log/apache2/access.log").stdout

        assert eventually(logged, f"the request in the log of {log.name}").startswith("203.0.113.10 ")


@pytest.mark.parametrize("vip", VIPS)
def test_what_is_larger_than_a_segment_arrives_as_it_was_sent(lab: DockerLab, vip: str) -> None:
    """Both ways through a director; kernels with offloads that do not go together have put other bytes into it."""
    name = f"large-{uuid.uuid4()}"
    there_and_back = (
        f"head -c 700000 /dev/urandom > /tmp/large && curl -sS --max-time 30 --data-binary @/tmp/large -o /dev/null"
        f" 'http://{vip}/upload.php?op={name}' && for _ in 1 2 3; do curl -sS --max-time 30"
        f" 'http://{vip}/upload.php?name={name}' | cmp - /tmp/large || exit 1; done; rm /tmp/large"
    )
    done = lab.node("client").exec("sh", "-c", there_and_back, timeout_s=150)
    assert done.ok, done.stdout + done.stderr


def test_the_resolver_answers_cyclically_over_the_wire(lab: DockerLab) -> None:
    look = ("python3", "-S", "/usr/lib/monkeywrench/site.py", "dns", "203.0.113.53", "www.ultramonkey.test", "4")

    def answered() -> list[list[str]]:
        answers: list[list[str]] = json.loads(lab.node("client").exec(*look, timeout_s=30).stdout)
        if [] in answers:
            raise NotYet(f"some came late: {answers}")
        return answers

    answers = eventually(answered, "all answers in time")
    assert sorted(answers[0]) == VIPS
    for before, after in pairwise(answers):
        assert after == [*before[1:], before[0]]


def test_the_client_resolves_through_the_labs_resolver(lab: DockerLab) -> None:
    assert curl(lab, "http://www.ultramonkey.test/alive").stdout == "OK\n"


def test_connections_are_synchronised_both_ways(lab: DockerLab) -> None:
    for vip, peer in ((VIPS[0], "lb-2"), (VIPS[1], "lb-1")):
        curl(lab, f"http://{vip}/")

        def arrived(vip: str = vip, peer: str = peer) -> bool:
            table = lab.node(peer).exec("ipvsadm", "-Lnc").stdout
            return f"{vip}:80" in table and "203.0.113.10:" in table

        assert eventually(arrived, f"a connection through {vip} to be known to {peer}", 60)


def test_heartbeat_speaks_on_both_segments(lab: DockerLab, tmp_path: Path) -> None:
    for segment in ("heartbeat", "lan"):
        path = tmp_path / f"{segment}.pcapng"
        capture = lab.capture(str(path), (segment,), "udp port 694")
        until(lambda: seen(lab, "(0)src=lb-1") and seen(lab, "(0)src=lb-2"), 60, "both directors' messages", 0.5)
        capture.stop()
        content = path.read_bytes()
        assert content[:4] == b"\x0a\x0d\x0d\x0a"  # pcapng's section header (draft-ietf-opsawg-pcapng)
        assert b"(0)t=status" in content
        assert b"(0)src=lb-1" in content
        assert b"(0)src=lb-2" in content


def seen(lab: DockerLab, text: str) -> bool:
    """Whether a text is in the capture that is being written in the switch."""
    return lab.switch.exec("sh", "-c", 'cat /tmp/*.pcapng | grep -aqF "$0"', text).ok


def test_a_message_to_heartbeat_is_written_in_one_piece(lab: DockerLab) -> None:
    whole = len(">>>\nt=ip-request-resp\nok=OK\n<<<\n")
    got = lab.node("lb-1").exec("sh", "-c", PIECES, timeout_s=60).stdout.split()
    assert got == [str(whole)] * 20


def test_of_a_message_in_pieces_heartbeat_forgets_the_first(lab: DockerLab) -> None:
    """Why the lab's directors have another ``ha_clustermsg`` than Debian's: without this it could go."""
    pieces = r"(printf '>>>\n'; sleep 1.5; printf 't=monkeywrench\n<<<\n') >> /var/lib/heartbeat/fifo"
    lab.node("lb-1").exec("sh", "-c", pieces)
    assert eventually(lambda: "Message with zero fields" in lab.last_words(), "heartbeat to complain")
    assert {line.partition(":")[0] for line in lab.last_words().splitlines()} == {"lb-1", "lb-2"}


def test_a_cable_can_be_captured_by_its_name(lab: DockerLab, tmp_path: Path) -> None:
    path = tmp_path / "cable.pcapng"
    capture = lab.capture(str(path), ("client.eth0",), "tcp port 80")
    curl(lab, f"http://{VIPS[0]}/alive")
    until(lambda: seen(lab, "GET /alive"), 60, "the request on the wire", 0.5)
    capture.stop()
    capture.stop()
    assert b"GET /alive" in path.read_bytes()
    with pytest.raises(LabError, match=r"unknown segment or cable 'lb-9\.eth0'"):
        lab.capture(str(path), ("lb-9.eth0",), "")


def test_a_bad_capture_filter_is_refused(lab: DockerLab, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="dumpcap rejected"):
        lab.capture(str(tmp_path / "x.pcapng"), ("lan",), "no such filter")


@pytest.mark.parametrize("name", ["client", "resolver", "lb-1", "web-1", "switch"])
def test_nothing_leaves_the_lab(lab: DockerLab, name: str) -> None:
    for outside in ("192.0.2.1", "1.1.1.1"):
        assert not lab.node(name).exec("ip", "route", "get", outside).ok
    if name == "switch":
        assert lab.switch.exec("ip", "-o", "-4", "addr", "show", "scope", "global").stdout == ""


def test_status_and_exec_on_the_command_line(lab: DockerLab) -> None:
    status = healthy_status(lab)
    assert status["healthy"] is True
    assert status["owners"] == {VIPS[0]: ["lb-1"], VIPS[1]: ["lb-2"]}
    assert {node["name"]: node["kernel"] for node in status["nodes"]}["lb-1"] == "uml"
    assert len(status["ipvs"]["lb-1"][f"{VIPS[0]}:80"]) == 6
    table = subprocess.run(
        [*MONKEYWRENCH, "exec", "--lab", lab.name, "lb-1", "--", "ipvsadm", "-Ln"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"TCP  {VIPS[0]}:80 wlc" in table.stdout
    failed = subprocess.run([*MONKEYWRENCH, "exec", "--lab", lab.name, "lb-1", "--", "sh", "-c", "exit 7"], check=False)
    assert failed.returncode == 7


def test_a_user_gets_sentences_not_tracebacks(lab: DockerLab) -> None:
    wrong = subprocess.run(
        [*MONKEYWRENCH, "exec", "--lab", lab.name, "lb-7", "--", "true"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 4
    assert "unknown node 'lb-7'" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    absent = subprocess.run([*MONKEYWRENCH, "status", "--lab", "no-such"], capture_output=True, text=True, check=False)
    assert absent.returncode == 4
    assert "monkeywrench up" in absent.stderr
