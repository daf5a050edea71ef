"""Faults of a real server's answers: others see them at each address, and ldirectord judges them as it is known to.

What ldirectord does is its own behaviour, good or bad: it is asserted here because scenarios and checks build on it.
"""

from __future__ import annotations

from typing import Any

import pytest

from faults import FAULTS
from faults.real_server import NoPhp, Slow, Stall, addresses, ask
from harness.protocols import LabError
from harness.wait import NotYet, pass_time, until
from tests.lab.faulty import as_before, injected
from topology.lab import DockerLab
from topology.parts.virtual_service import parse_ipvs

WEB, PEER, DIRECTOR = "web-3", "web-2", "lb-1"
NOTICED_S = 45
"""ldirectord asks one server after another, and waits some seconds for each that is silent."""
CHECKED_S = 8
"""Several times ldirectord's interval: in this time it would have noticed."""

OUT: list[tuple[str, dict[str, Any], str]] = [
    ("refuse", {}, ""),
    ("stall", {}, ""),
    ("reset", {}, ""),
    ("error", {"status": 503}, "HTTP/1.1 503 Service Unavailable"),
    ("wrong-content", {}, "It works!"),
    ("slow", {"delay_ms": 6000}, ""),
    ("partial", {"share": 0.1}, "HTTP/1.1 200 OK"),
]
"""Faults after which ldirectord gives a server no new connections, and what a director gets from it within 2 s."""
STAYS: list[tuple[str, dict[str, Any], str]] = [
    ("partial", {"share": 0.5}, "HTTP/1.1 200 OK"),
    ("redirect", {"to": PEER}, "HTTP/1.1 302 Found"),
    ("wrong-content", {"content": "NOT OK"}, "NOT OK"),
    ("slow", {"delay_ms": 500}, "HTTP/1.1 200 OK"),
]
"""Faults that ldirectord does not see: it reads what it looks for in the part that came, and it follows redirects."""


def weights(lab: DockerLab) -> list[int]:
    """The weight of WEB in each virtual service of each director."""
    own = addresses(lab, WEB)
    tables = [parse_ipvs(lab.node(name).exec("ipvsadm", "-Ln").stdout, {}) for name in lab.cluster.directors]
    rows = [row for table in tables for servers in table.values() for row in servers]
    return [row.weight for row in rows if row.address.partition(":")[0] in own]


def all_weights(lab: DockerLab, wanted: int) -> bool:
    """True once WEB has that weight everywhere."""
    found = weights(lab)
    if len(found) != len(lab.cluster.directors) * len(lab.cluster.vips) or set(found) != {wanted}:
        raise NotYet(f"the weights of {WEB} are {found}")
    return True


def from_director(lab: DockerLab, address: str, path: str = "/alive") -> str:
    """What a director gets of a page within 2 s, without any program of the faults' own."""
    script = 'exec 3<> "/dev/tcp/$0/80" && printf "GET $1 HTTP/1.0\\r\\n\\r\\n" >&3 && cat <&3'
    return lab.node(DIRECTOR).exec("timeout", "2", "bash", "-c", script, address, path).stdout


@pytest.mark.parametrize(("fault", "settings", "shown"), OUT)
def test_ldirectord_takes_it_out_and_back_in(lab: DockerLab, fault: str, settings: dict[str, Any], shown: str) -> None:
    with injected(lab, f"real-server.{fault}", node=WEB, **settings) as proof:
        for address in addresses(lab, WEB):
            answer = from_director(lab, address)
            assert shown in answer
            assert not answer.endswith("OK\n")
            assert address in proof.seen
        until(lambda: all_weights(lab, 0), NOTICED_S, f"ldirectord to take {WEB} out", 0.5)
    for address in addresses(lab, WEB):
        assert from_director(lab, address).endswith("OK\n")
    assert all_weights(lab, 1)


@pytest.mark.parametrize(("fault", "settings", "shown"), STAYS)
def test_ldirectord_does_not_see_it(lab: DockerLab, fault: str, settings: dict[str, Any], shown: str) -> None:
    with injected(lab, f"real-server.{fault}", node=WEB, **settings):
        for address in addresses(lab, WEB):
            assert shown in from_director(lab, address)
        assert pass_time(CHECKED_S, lambda: set(weights(lab)) != {1}, 0.5)


def test_errors_at_a_rate_hit_some_and_not_others(lab: DockerLab) -> None:
    with injected(lab, "real-server.error", node=WEB, rate=0.5, seed=7):
        own = addresses(lab, WEB)
        statuses = {ask(lab.node(PEER), own)[address].status for _ in range(8) for address in own}
        assert statuses == {200, 500}


def test_without_php_scripts_are_text_and_ldirectord_does_not_see_it(lab: DockerLab) -> None:
    with injected(lab, "real-server.no-php", node=WEB):
        for address in addresses(lab, WEB):
            assert "<?php" in from_director(lab, address, "/index.php")
            assert from_director(lab, address).endswith("OK\n")
        assert pass_time(CHECKED_S, lambda: set(weights(lab)) != {1}, 0.5)
    for address in addresses(lab, WEB):
        assert "<?php" not in from_director(lab, address, "/index.php")


ON_ONE_CONNECTION = """
import http.client, sys, time
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=20)
while True:
    connection.request("GET", "/alive")
    print(connection.getresponse().read().decode().strip(), flush=True)
    time.sleep(0.5)
"""


def test_a_connection_that_exists_goes_on(lab: DockerLab) -> None:
    own = addresses(lab, WEB)[0]
    stream = lab.node(PEER).stream("python3", "-c", ON_ONE_CONNECTION, own)
    lines = iter(stream)
    assert next(lines).text == "OK"
    with injected(lab, "real-server.stall", node=WEB) as proof:
        answered = next(line for line in lines if line.time_ns > proof.time_ns + 2_000_000_000)
        assert answered.text == "OK"
    stream.stop()


def test_there_is_one_impostor_and_other_faults_compose_with_it(lab: DockerLab) -> None:
    before, own = lab.audit(), addresses(lab, WEB)
    with Slow(node=WEB, delay_ms=300).inject(lab), NoPhp(node=WEB).inject(lab):
        with pytest.raises(LabError, match=r"port 80 is taken by real-server\.slow"), Stall(node=WEB).inject(lab):
            pytest.fail("there are two")
        for answer in ask(lab.node(PEER), own, "/index.php").values():
            assert answer.content.startswith("<?php")
            assert answer.ms >= 300
    as_before(lab, before)


def test_an_impostor_is_back_after_a_reboot(lab: DockerLab) -> None:
    before, own = lab.audit(), addresses(lab, WEB)
    with Stall(node=WEB).inject(lab):
        lab.node(WEB).power_off()
        lab.node(WEB).boot()

        def stalls() -> bool:
            answers = ask(lab.node(PEER), own)
            if any(answer.end != "silent" or answer.status for answer in answers.values()):
                raise NotYet(str([str(answer) for answer in answers.values()]))
            return lab.node(WEB).exec("pgrep", "-f", "faults/impostor").ok

        until(stalls, 30, "the impostor to be back")
    as_before(lab, before)


def test_only_real_servers_with_a_kernel_of_their_own_can_have_them(lab: DockerLab) -> None:
    assert FAULTS["real-server.stall"](node="db").available(lab) == "db is no real server, but a db"
    assert FAULTS["real-server.no-php"](node="client").available(lab) == "client is no real server, but a client"
    reason = FAULTS["real-server.redirect"](node=WEB, to=WEB).available(lab)
    assert reason is not None
    assert "'web-3' is no other real server; there are: web-1, web-2" in reason
