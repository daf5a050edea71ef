"""Faults of a real server's answers: others see them at each address, and ldirectord judges them as it is known to.

What ldirectord does is its own behaviour, good or bad: it is asserted here because scenarios and checks build on it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from faults import FAULTS
from faults.real_server import NoPhp, Slow, Stall, addresses, ask
from harness.records import LabError
from harness.wait import NotYet, pass_time
from tests.support.faulty import as_before, eventually, injected
from topology.lab.docker_lab import DockerLab
from topology.parts.virtual_service import parse_ipvs

WEB, PEER, DIRECTOR = "web-3", "web-2", "lb-1"
NOTICED_S = 120
"""ldirectord asks one server after another, and waits some seconds for each that is silent."""
CHECKED_S = 8
"""Several times ldirectord's interval: in this time it would have noticed."""
STRETCH_S = 180
"""A real server that stands still for 3 s is quiesced rightly, and taken back: the stretch of time begins anew."""

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


def right_again(lab: DockerLab) -> bool:
    """True once each address of WEB gives a director the right answer."""
    return all(from_director(lab, address).endswith("OK\n") for address in addresses(lab, WEB))


def stays_in(lab: DockerLab) -> bool:
    """True after a stretch of time in which WEB was in service everywhere, at every look."""

    def stretch() -> bool:
        return pass_time(CHECKED_S, lambda: set(weights(lab)) != {1}, 0.5)

    return eventually(stretch, f"{CHECKED_S} s in service at a stretch", STRETCH_S)


@pytest.mark.parametrize(("fault", "settings", "shown"), OUT)
def test_ldirectord_takes_it_out_and_back_in(lab: DockerLab, fault: str, settings: dict[str, Any], shown: str) -> None:
    with injected(lab, f"real-server.{fault}", node=WEB, **settings) as proof:
        for address in addresses(lab, WEB):
            eventually(partial(spoilt, lab, address, shown), f"a director to get that from {address}")
            assert address in proof.seen
        eventually(lambda: all_weights(lab, 0), f"ldirectord to take {WEB} out", NOTICED_S)
    assert eventually(lambda: right_again(lab), "the right answers")
    assert eventually(lambda: all_weights(lab, 1), f"ldirectord to have taken {WEB} back", NOTICED_S)


def spoilt(lab: DockerLab, address: str, shown: str) -> bool:
    """Whether a director gets that now. What it never gets is the right answer."""
    answer = from_director(lab, address)
    assert not answer.endswith("OK\n")
    return shown in answer


@pytest.mark.parametrize(("fault", "settings", "shown"), STAYS)
def test_ldirectord_does_not_see_it(lab: DockerLab, fault: str, settings: dict[str, Any], shown: str) -> None:
    with injected(lab, f"real-server.{fault}", node=WEB, **settings):
        for address in addresses(lab, WEB):
            gets(lab, shown, address)
        assert stays_in(lab)


def gets(lab: DockerLab, shown: str, address: str, path: str = "/alive") -> None:
    """See that a director gets that from an address."""
    eventually(lambda: shown in from_director(lab, address, path), f"{shown!r} from {address}")


def test_errors_at_a_rate_hit_some_and_not_others(lab: DockerLab) -> None:
    with injected(lab, "real-server.error", node=WEB, rate=0.5, seed=7):
        own = addresses(lab, WEB)
        statuses = {ask(lab.node(PEER), own)[address].status for _ in range(8) for address in own}
        assert statuses - {0} == {200, 500}  # 0: it came late


def test_without_php_scripts_are_text_and_ldirectord_does_not_see_it(lab: DockerLab) -> None:
    with injected(lab, "real-server.no-php", node=WEB):
        for address in addresses(lab, WEB):
            gets(lab, "<?php", address, "/index.php")
        assert eventually(lambda: right_again(lab), "static pages as ever")
        assert stays_in(lab)
    for address in addresses(lab, WEB):
        page = eventually(partial(from_director, lab, address, "/index.php"), f"a page from {address}")
        assert "<?php" not in page


ON_ONE_CONNECTION = """
import http.client, sys, time
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=20)
while True:
    connection.request("GET", "/alive")
    print(connection.getresponse().read().decode().strip(), flush=True)
    time.sleep(1)
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

        def text_and_late() -> bool:
            answers = ask(lab.node(PEER), own, "/index.php").values()
            assert all(answer.ms >= 300 for answer in answers)
            return all(answer.content.startswith("<?php") for answer in answers)

        assert eventually(text_and_late, "scripts as text, late")
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

        assert eventually(stalls, "the impostor to be back")
    as_before(lab, before)


def test_only_real_servers_with_a_kernel_of_their_own_can_have_them(lab: DockerLab) -> None:
    assert FAULTS["real-server.stall"](node="db").available(lab) == "db is no real server, but a db"
    assert FAULTS["real-server.no-php"](node="client").available(lab) == "client is no real server, but a client"
    reason = FAULTS["real-server.redirect"](node=WEB, to=WEB).available(lab)
    assert reason is not None
    assert "'web-3' is no other real server; there are: web-1, web-2" in reason
