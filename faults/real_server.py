"""Faults of a real server as clients and ldirectord see it: how it answers on port 80, while its machine is sound.

Most are an *impostor*: a program in the node that answers new connections from outside in place of Apache, or passes
them on to it and spoils the answer. Connections that exist go on, the node itself still reaches Apache, and Apache may
be stopped and started meanwhile. See ``take-port`` and ``impostor`` among the programs of the nodes.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from pydantic import Field

from faults.fault import Change, NodeFault, must, running, sh
from faults.node import needs_own_kernel
from harness.protocols import Lab, Node
from harness.records import LabError, Power, Undo
from harness.wait import NotYet

PROGRAMS = "/usr/lib/monkeywrench/faults"
TAKE_PORT, IMPOSTOR = f"{PROGRAMS}/take-port", f"{PROGRAMS}/impostor"
PORT = "80"
SEGMENT = "lan"

STATIC = "/alive"
"""The file that ldirectord asks for."""
PHP = "/index.php"

PATIENCE_S = 1.5
"""A real server that answers at all does so within milliseconds; silence this long is taken for silence."""

PROOF_WITHIN_S = 30.0
"""To see that each address is silent takes seconds by itself."""

CLAIM = f"port {PORT}"
"""There can be one impostor."""

ASK = """
import json, socket, sys, time
path, patience_s, *addresses = sys.argv[1:]

def ask(address):
    began, data, end = time.monotonic(), b"", "closed"
    try:
        with socket.create_connection((address, 80), float(patience_s)) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\\r\\nHost: {address}\\r\\nConnection: close\\r\\n\\r\\n".encode())
            while more := connection.recv(65536):
                data += more
    except TimeoutError:
        end = "silent"
    except ConnectionRefusedError:
        end = "refused"
    except ConnectionError:
        end = "reset"
    head, _, content = data.decode("latin-1").partition("\\r\\n\\r\\n")
    status, *lines = head.split("\\r\\n")
    fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    took_ms = round((time.monotonic() - began) * 1000)
    code = int(status.split()[1]) if status else 0
    return {"end": end, "status": code, "content": content, "fields": fields, "ms": took_ms}

print(json.dumps({address: ask(address) for address in addresses}))
"""


@dataclass(frozen=True)
class Answer:
    """What one request came to. ``end`` is ``closed``, ``silent``, ``refused`` or ``reset``; ``status`` 0 is none."""

    end: str
    status: int
    content: str
    fields: Mapping[str, str]
    """Headers, their names in lower case."""
    ms: int

    def __str__(self) -> str:
        what = f"{self.status} with {len(self.content)} bytes" if self.status else "no answer"
        return f"{what}, {self.end} after {self.ms} ms"


def ask(
    collector: Node, addresses: Sequence[str], path: str = STATIC, patience_s: float = PATIENCE_S
) -> dict[str, Answer]:
    """What another node gets from each address of a real server; one after another, each silent for so long at most."""
    argv = ("python3", "-IS", "-c", ASK, path, str(patience_s), *addresses)
    said = must(collector, *argv, timeout_s=10 + (patience_s + 5) * len(addresses)).stdout
    return {address: Answer(**answer) for address, answer in json.loads(said).items()}


def addresses(lab: Lab, node: str) -> tuple[str, ...]:
    """A real server's own addresses: one for each VIP when requests come by address translation."""
    return next((cable.addresses for cable in lab.cables if cable.node == node and cable.segment == SEGMENT), ())


def collector(lab: Lab, node: Node) -> Node:
    """Another running node on the same segment, rather a real server than a director. Raises LabError."""
    others = [lab.node(cable.node) for cable in lab.cables if cable.segment == SEGMENT and cable.node != node.name]
    order = {"web": 0, "db": 1}
    for other in sorted(others, key=lambda each: order.get(each.role, 2)):
        if other.power() is Power.RUNNING:
            return other
    raise LabError(f"there is no other node on the {SEGMENT} that could see what {node.name} answers")


class _RealServer(NodeFault):
    """A fault of one real server's answers."""

    def possible(self, node: Node) -> str | None:
        """Needs a real server with a kernel of its own."""
        if node.role != "web":
            return f"{node.name} is no real server, but a {node.role}"
        return needs_own_kernel(node, "cannot give a port of its own to another program")

    def seen(self, lab: Lab, node: Node, path: str = STATIC) -> Callable[[], dict[str, Answer]]:
        """How another node sees it."""
        other, own = collector(lab, node), addresses(lab, node.name)
        return lambda: ask(other, own, path, self.patience_s())

    def patience_s(self) -> float:
        """How long a question may take."""
        return PATIENCE_S


class _Impostor(_RealServer):
    """A fault that is a program in Apache's place."""

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """What the program is told besides its kind."""
        return {}

    @abstractmethod
    def shows(self, answer: Answer) -> str:
        """What an answer shows of the fault, or nothing."""

    def proven(self, shown: Sequence[str]) -> bool:
        """Whether that is enough, of one answer of each address."""
        return all(shown)

    def command(self, lab: Lab, node: Node) -> tuple[str, ...]:
        """What takes the port."""
        told = {"kind": self.name.partition(".")[2], **self.settings(lab, node)}
        return (TAKE_PORT, PORT, IMPOSTOR, json.dumps(told, sort_keys=True))

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: who answers."""
        node = running(lab.node(self.node))
        command, look = self.command(lab, node), self.seen(lab, node)

        def spoilt() -> str:
            answers = look()
            if not self.proven([self.shows(answer) for answer in answers.values()]):
                raise NotYet("; ".join(f"{address}: {answer}" for address, answer in answers.items()))
            return "; ".join(f"{address}: {self.shows(answer)}" for address, answer in answers.items())

        def sound() -> None:
            if node.exec("pgrep", "-f", RUNS).ok:
                raise NotYet("the impostor is still there")
            for address, answer in look().items():
                if self.shows(answer):
                    raise NotYet(f"{address}: {answer}")

        again = (Undo(command),)
        return [
            Change(node, CLAIM, lambda: must(node, *command), UNDO, spoilt, sound, again, proof_within_s=PROOF_WITHIN_S)
        ]


RUNS = f"[f]aults/(take-port {PORT}|impostor)"
UNDO = (Undo(sh('pkill -KILL -f "$1"; true', RUNS)),)


class Refuse(_Impostor):
    """Refuse all connections, as a port does that nobody listens to."""

    name: ClassVar[str] = "real-server.refuse"

    def command(self, lab: Lab, node: Node) -> tuple[str, ...]:
        """Nobody is given the port."""
        return (TAKE_PORT, PORT)

    def shows(self, answer: Answer) -> str:
        """Refused."""
        return "refused" if answer.end == "refused" else ""


class Stall(_Impostor):
    """Accept connections, and never answer."""

    name: ClassVar[str] = "real-server.stall"

    def shows(self, answer: Answer) -> str:
        """Silence."""
        return f"silent for {answer.ms} ms" if answer.end == "silent" and not answer.status else ""


class Reset(_Impostor):
    """Accept connections, and reset them."""

    name: ClassVar[str] = "real-server.reset"

    def shows(self, answer: Answer) -> str:
        """Reset."""
        return "reset" if answer.end == "reset" and not answer.status else ""


class Partial(_Impostor):
    """Send the beginning of each answer, then nothing more, and leave the connection open.

    ldirectord takes such an answer for good if what it looks for is in the part that it got.
    """

    name: ClassVar[str] = "real-server.partial"
    share: float = Field(0.5, ge=0, lt=1, description="Of the content, rounded up to bytes")

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """The share."""
        return {"share": self.share}

    def shows(self, answer: Answer) -> str:
        """Less than was announced, then silence."""
        announced = int(answer.fields.get("content-length", 0))
        if answer.end != "silent" or len(answer.content) >= announced:
            return ""
        return f"{len(answer.content)} of {announced} bytes, then silence"


class Slow(_Impostor):
    """Answer late, and no faster than a line allows."""

    name: ClassVar[str] = "real-server.slow"
    delay_ms: int = Field(1000, ge=50, le=60_000, description="Before each answer")
    bytes_per_s: int = Field(0, ge=0, description="How fast an answer comes then; 0 is as fast as it can")

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """Delay and rate."""
        return {"delay_ms": self.delay_ms, "bytes_per_s": self.bytes_per_s}

    def patience_s(self) -> float:
        """Longer than the delay, and a small file's way."""
        return PATIENCE_S + self.delay_ms / 1000 + (1000 / self.bytes_per_s if self.bytes_per_s else 0)

    def shows(self, answer: Answer) -> str:
        """Late."""
        return f"{answer.status} after {answer.ms} ms" if answer.status and answer.ms >= self.delay_ms else ""


class Error(_Impostor):
    """Answer with an error, always or at a rate. Which requests it hits depends on the seed and their order only."""

    name: ClassVar[str] = "real-server.error"
    status: int = Field(500, ge=400, le=599, description="The HTTP status")
    rate: float = Field(1.0, ge=0.05, le=1, description="Of all requests")
    seed: int = Field(0, ge=0, lt=2**64, description="What picks the requests")

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """Status, rate and seed."""
        return {"status": f"{self.status} {_phrase(self.status)}", "rate": self.rate, "seed": self.seed}

    def proven(self, shown: Sequence[str]) -> bool:
        """At a rate, the first error is enough."""
        return any(shown)

    def shows(self, answer: Answer) -> str:
        """The status."""
        return f"{answer.status}" if answer.status == self.status else ""


class WrongContent(_Impostor):
    """Answer every request with success, and with a page that is not the site's: a default page, an empty one."""

    name: ClassVar[str] = "real-server.wrong-content"
    content: str = Field("<h1>It works!</h1>\n", description="The whole answer; ldirectord looks for OK in it")

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """The content."""
        return {"content": self.content}

    def shows(self, answer: Answer) -> str:
        """The content."""
        return f"200 with {answer.content!r}" if answer.status == 200 and answer.content == self.content else ""


class Redirect(_Impostor):
    """Redirect every request to another real server, by its address. ldirectord follows, and finds all well."""

    name: ClassVar[str] = "real-server.redirect"
    to: str = Field(min_length=1, description="The name of the other real server")

    def available(self, lab: Lab) -> str | None:
        """Needs another real server."""
        if reason := super().available(lab):
            return reason
        others = [node.name for node in lab.nodes("web") if node.name != self.node]
        return None if self.to in others else f"{self.to!r} is no other real server; there are: {', '.join(others)}"

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """For each address the one of the other that serves the same VIP."""
        return {"to": dict(zip(addresses(lab, node.name), addresses(lab, self.to), strict=True))}

    def shows(self, answer: Answer) -> str:
        """Where to."""
        return f"302 to {answer.fields.get('location')}" if answer.status == 302 else ""


class NoPhp(_RealServer):
    """Lose PHP: Apache serves static files, and scripts as the text that they are, as after a failed upgrade.

    Undone by PHP's own configuration and a graceful restart, as Apache calls it: what is being served is finished.
    """

    name: ClassVar[str] = "real-server.no-php"

    def possible(self, node: Node) -> str | None:
        """Needs a site with PHP."""
        if reason := super().possible(node):
            return reason
        if not running(node).exec("sh", "-c", f"ls {CONFIGURATION}").ok:
            return f"{node.name} has no PHP"
        return None

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: an empty file over the one that gives scripts to PHP."""
        node = running(lab.node(self.node))
        scripts, files = self.seen(lab, node, PHP), self.seen(lab, node)
        apply = sh(LOSE_PHP)

        def lost() -> str:
            for address, answer in scripts().items():
                if not _source(answer):
                    raise NotYet(f"{address}{PHP}: {answer}")
            for address, answer in files().items():
                if answer.status != 200:
                    raise NotYet(f"{address}{STATIC}: {answer}")
            return f"{node.name} serves {PHP} as text, and {STATIC} as ever"

        def back() -> None:
            for address, answer in scripts().items():
                if not answer.status or _source(answer):
                    raise NotYet(f"{address}{PHP}: {answer}")

        return [
            Change(node, "PHP", lambda: must(node, *apply), (Undo(sh(FIND_PHP)),), lost, back, again=(Undo(apply),))
        ]


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"


def _source(answer: Answer) -> bool:
    return answer.content.lstrip().startswith("<?php")


CONFIGURATION = "/etc/apache2/mods-available/php*.conf"
"""Debian's: it has the SetHandler for PHP's scripts, and no more that matters."""
EMPTY = "/run/monkeywrench/faults/no-php.conf"
GRACEFUL = 'read -r pid < /run/service/apache/supervise/pid && kill -USR1 "$pid"\n'
"""Apache's manual, "Stopping and Restarting": what ``apachectl graceful`` sends."""
LOSE_PHP = f"""
mkdir -p {EMPTY.rpartition("/")[0]}
: > {EMPTY}
for file in {CONFIGURATION}; do mount --bind {EMPTY} "$file" || exit 1; done
{GRACEFUL}"""
FIND_PHP = f"""
[ -e {EMPTY} ] || exit 0
for file in {CONFIGURATION}; do umount "$file" 2> /dev/null; done
rm -f {EMPTY}
{GRACEFUL}true
"""
