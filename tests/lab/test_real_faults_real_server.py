"""Faults of a real server's answers: others see them at each address, and ldirectord judges them as it is known to.

What ldirectord does is its own behaviour, good or bad: it is asserted here because scenarios and checks build on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest

from faults.real_server import NoPhp, Slow, Stall, addresses, ask
from harness.records import LabError, Proof
from harness.wait import NotYet, pass_time
from tests.support.faulty import eventually, injected, together
from topology.lab.docker_lab import DockerLab
from topology.parts.virtual_service import parse_ipvs

WEB, PEER, DIRECTOR = "web-3", "web-2", "lb-1"
NOTICED_S = 120
"""ldirectord asks one server after another, and waits some seconds for each that is silent."""
CHECKED_S = 8
"""Several times ldirectord's interval: in this time it would have noticed."""
STRETCH_S = 180
"""A real server that stalls for 3 s is rightly quiesced, and taken back: the stretch of time begins anew."""

pytestmark = pytest.mark.usefixtures("audited")


class Case(NamedTuple):
    """A fault of a real server, and what a director gets from it within 2 s."""

    node: str
    fault: str
    settings: dict[str, Any]
    shown: str


OUT = (
    (
        Case("web-2", "refuse", {}, ""),
        Case("web-3", "stall", {}, ""),
        Case("web-4", "error", {"status": 503}, "HTTP/1.1 503 Service Unavailable"),
        Case("web-5", "wrong-content", {}, "It works!"),
    ),
    (
        Case("web-3", "reset", {}, ""),
        Case("web-4", "slow", {"delay_ms": 6000}, ""),
        Case("web-6", "partial", {"share": 0.1}, "HTTP/1.1 200 OK"),
    ),
)
"""Faults after which ldirectord gives a server no new connections. web-1 and another one stay in service."""
STAYS = (
    Case("web-2", "partial", {"share": 0.5}, "HTTP/1.1 200 OK"),
    Case("web-3", "redirect", {"to": "web-1"}, "HTTP/1.1 302 Found"),
    Case("web-4", "wrong-content", {"content": "NOT OK"}, "NOT OK"),
    Case("web-5", "slow", {"delay_ms": 500}, "HTTP/1.1 200 OK"),
)
"""Faults that ldirectord does not see: it reads what it looks for in the part that came, and it follows redirects."""


def weights(lab: DockerLab, nodes: Iterable[str]) -> dict[str, list[int]]:
    """The weights of these real servers in each virtual service of each director."""
    tables = [parse_ipvs(lab.node(name).exec("ipvsadm", "-Ln").stdout, {}) for name in lab.cluster.directors]
    rows = [row for table in tables for servers in table.values() for row in servers]
    return {
        node: [row.weight for row in rows if row.address.partition(":")[0] in addresses(lab, node)] for node in nodes
    }


def all_weights(lab: DockerLab, cases: Iterable[Case], wanted: int) -> bool:
    """True once all these real servers have that weight everywhere."""
    found = weights(lab, [case.node for case in cases])
    everywhere = [wanted] * (len(lab.cluster.directors) * len(lab.cluster.vips))
    if any(each != everywhere for each in found.values()):
        raise NotYet(f"the weights are {found}")
    return True


def from_director(lab: DockerLab, address: str, path: str = "/alive") -> str:
    """What a director gets of a page within 2 s, without any program of the faults' own."""
    script = 'exec 3<> "/dev/tcp/$0/80" && printf "GET $1 HTTP/1.0\\r\\n\\r\\n" >&3 && cat <&3'
    return lab.node(DIRECTOR).exec("timeout", "2", "bash", "-c", script, address, path).stdout


def right_again(lab: DockerLab, node: str = WEB) -> bool:
    """True once each address of a real server gives a director the right answer."""
    return all(from_director(lab, address).endswith("OK\n") for address in addresses(lab, node))


def stay_in(lab: DockerLab, nodes: Sequence[str]) -> bool:
    """True after a stretch of time in which these real servers were in service everywhere, at every look."""

    def out() -> bool:
        return any(set(found) != {1} for found in weights(lab, nodes).values())

    return eventually(lambda: pass_time(CHECKED_S, out, 0.5), f"{CHECKED_S} s in service at a stretch", STRETCH_S)


@contextmanager
def all_injected(lab: DockerLab, cases: Sequence[Case]) -> Iterator[dict[str, Proof]]:
    """All these faults at once, each of another real server."""
    with ExitStack() as stack:
        proofs = {}
        for node, fault, settings, _ in cases:
            proofs[node] = stack.enter_context(injected(lab, f"real-server.{fault}", node=node, **settings))
        yield proofs


@pytest.mark.parametrize("cases", OUT, ids=lambda cases: "+".join(case.fault for case in cases))
def test_ldirectord_takes_them_out_and_back_in(lab: DockerLab, cases: Sequence[Case]) -> None:
    def shown(case: Case) -> None:
        for address in addresses(lab, case.node):
            eventually(partial(spoilt, lab, address, case.shown), f"a director to get that from {address}")
            assert address in proofs[case.node].seen

    with all_injected(lab, cases) as proofs:
        together(cases, shown)
        eventually(lambda: all_weights(lab, cases, 0), "ldirectord to take them out", NOTICED_S)
    for case in cases:
        assert eventually(partial(right_again, lab, case.node), f"the right answers of {case.node}")
    assert eventually(lambda: all_weights(lab, cases, 1), "ldirectord to take them back", NOTICED_S)


def spoilt(lab: DockerLab, address: str, shown: str) -> bool:
    """Whether a director gets that now. What it never gets is the right answer."""
    answer = from_director(lab, address)
    assert not answer.endswith("OK\n")
    return shown in answer


def test_ldirectord_does_not_see_them(lab: DockerLab) -> None:
    def shown(case: Case) -> None:
        for address in addresses(lab, case.node):
            gets(lab, case.shown, address)

    with all_injected(lab, STAYS), injected(lab, "real-server.no-php", node="web-6"):
        together(STAYS, shown)
        for address in addresses(lab, "web-6"):
            gets(lab, "<?php", address, "/index.php")
        assert eventually(lambda: right_again(lab, "web-6"), "static pages as ever")
        assert stay_in(lab, [*(case.node for case in STAYS), "web-6"])
    for address in addresses(lab, "web-6"):
        page = eventually(partial(from_director, lab, address, "/index.php"), f"a page from {address}")
        assert "<?php" not in page


def gets(lab: DockerLab, shown: str, address: str, path: str = "/alive") -> None:
    """See that a director gets that from an address."""
    eventually(lambda: shown in from_director(lab, address, path), f"{shown!r} from {address}")


def test_errors_at_a_rate_hit_some_and_not_others(lab: DockerLab) -> None:
    with injected(lab, "real-server.error", node=WEB, rate=0.5, seed=7):
        own = addresses(lab, WEB)
        statuses = {ask(lab.node(PEER), own)[address].status for _ in range(8) for address in own}
        assert statuses - {0} == {200, 500}  # 0: it came late


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
    own = addresses(lab, WEB)
    with Slow(node=WEB, delay_ms=300).inject(lab), NoPhp(node=WEB).inject(lab):
        with pytest.raises(LabError, match=r"port 80 is taken by real-server\.slow"), Stall(node=WEB).inject(lab):
            pytest.fail("there are two")

        def text_and_late() -> bool:
            answers = ask(lab.node(PEER), own, "/index.php").values()
            assert all(answer.ms >= 300 for answer in answers)
            return all(answer.content.startswith("<?php") for answer in answers)

        assert eventually(text_and_late, "scripts as text, late")


def test_an_impostor_is_back_after_a_reboot(lab: DockerLab) -> None:
    own = addresses(lab, WEB)
    with Stall(node=WEB).inject(lab):
        lab.node(WEB).power_off()
        lab.node(WEB).boot()

        def stalls() -> bool:
            answers = ask(lab.node(PEER), own)
            if any(answer.end != "silent" or answer.status for answer in answers.values()):
                raise NotYet(str([str(answer) for answer in answers.values()]))
            return lab.node(WEB).exec("pgrep", "-f", "faults/impostor").ok

        assert eventually(stalls, "the impostor to be back")
