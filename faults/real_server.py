"""Faults of a real server's answers on port 80, as clients and ldirectord see them, while its node is sound.

Most are an *impostor*: a program on the node that answers new connections from outside in place of Apache, or passes
them on to Apache and changes the answer. Existing connections continue, the node itself still reaches Apache, and
Apache may restart meanwhile (programs ``take-port`` and ``impostor``).
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from pydantic import Field

from faults.fault import Change, NodeFault, must, require_own_kernel, running, sh
from faults.programs import PROGRAMS, SERVICES, STATE
from harness.protocols import Lab, Node
from harness.records import EffectKind, LabError, Power, Undo
from harness.wait import NotYet

TAKE_PORT, IMPOSTOR = f"{PROGRAMS}/take-port", f"{PROGRAMS}/impostor"
PORT = "80"
SEGMENT = "lan"

STATIC = "/alive"
"""The file that ldirectord requests."""
PHP = "/index.php"

PATIENCE_S = 1.5
"""A sound real server answers within milliseconds; after this long it counts as silent."""

PROOF_WITHIN_S = 30.0
"""It takes seconds to see that each address is silent."""

CLAIM = f"port {PORT}"
"""Only one impostor can have the port."""

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
    """The outcome of one request. ``end`` is ``closed``, ``silent``, ``refused`` or ``reset``; ``status`` 0 is none."""

    end: str
    status: int
    content: str
    fields: Mapping[str, str]
    """Headers; names in lower case."""
    ms: int

    def __str__(self) -> str:
        what = f"{self.status} with {len(self.content)} bytes" if self.status else "no answer"
        return f"{what}, {self.end} after {self.ms} ms"


def ask(
    observer: Node, addresses: Sequence[str], path: str = STATIC, patience_s: float = PATIENCE_S
) -> dict[str, Answer]:
    """Let another node ask each address of a real server, one after the other, each for at most ``patience_s``."""
    argv = ("python3", "-IS", "-c", ASK, path, str(patience_s), *addresses)
    done = must(observer, *argv, timeout_s=10 + (patience_s + 5) * len(addresses))
    return {address: Answer(**answer) for address, answer in json.loads(done.stdout).items()}


def addresses(lab: Lab, node: str) -> tuple[str, ...]:
    """A real server's own addresses: 1 for each VIP with address translation."""
    return next((cable.addresses for cable in lab.cables if cable.node == node and cable.segment == SEGMENT), ())


def observer_of(lab: Lab, node: Node) -> Node:
    """Another running node on the same segment, preferably a real server. Raises LabError."""
    others = [lab.node(cable.node) for cable in lab.cables if cable.segment == SEGMENT and cable.node != node.name]
    order = {"web": 0, "db": 1}
    for other in sorted(others, key=lambda each: order.get(each.role, 2)):
        if other.power() is Power.RUNNING:
            return other
    raise LabError(
        f"no other node on the segment {SEGMENT} is running, so the answers of {node.name} cannot be observed"
    )


class _RealServer(NodeFault):
    """A fault of one real server's answers."""

    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.CHANGES_ANSWERS,)
    of_service: ClassVar[str] = "apache"

    def require(self, node: Node) -> None:
        """A real server with a kernel of its own."""
        if node.role != "web":
            raise LabError(f"{node.name} is not a real server: its role is {node.role}")
        require_own_kernel(node, "cannot give one of its ports to another program")

    def seen(self, lab: Lab, node: Node, path: str = STATIC) -> Callable[[], dict[str, Answer]]:
        """A look from another node."""
        other, own = observer_of(lab, node), addresses(lab, node.name)
        return lambda: ask(other, own, path, self.patience_s())

    def patience_s(self) -> float:
        """How long a request may take."""
        return PATIENCE_S


class _Impostor(_RealServer):
    """A program in the place of Apache."""

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """The program's settings besides its kind."""
        return {}

    @abstractmethod
    def shows(self, answer: Answer) -> str:
        """What an answer shows of the fault; empty for nothing."""

    def proven(self, shown: Sequence[str]) -> bool:
        """Whether the answers, one of each address, are proof enough."""
        return all(shown)

    def command(self, lab: Lab, node: Node) -> tuple[str, ...]:
        """The command that takes over the port."""
        settings = {"kind": self.name.partition(".")[2], **self.settings(lab, node)}
        return (TAKE_PORT, PORT, IMPOSTOR, json.dumps(settings, sort_keys=True))

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The impostor answers."""
        node = running(lab.node(self.node))
        command, look = self.command(lab, node), self.seen(lab, node)

        def changed() -> str:
            answers = look()
            if not self.proven([self.shows(answer) for answer in answers.values()]):
                raise NotYet("; ".join(f"{address}: {answer}" for address, answer in answers.items()))
            return "; ".join(f"{address}: {self.shows(answer)}" for address, answer in answers.items())

        def sound() -> None:
            if node.exec("pgrep", "-f", RUNS).ok:
                raise NotYet("the impostor still runs")
            for address, answer in look().items():
                if self.shows(answer):
                    raise NotYet(f"{address}: {answer}")

        again = (Undo(command),)
        return [
            Change(
                node, CLAIM, lambda: must(node, *command), UNDO, changed, sound, again, proof_within_s=PROOF_WITHIN_S
            )
        ]


RUNS = f"[f]aults/(take-port {PORT}|impostor)"
UNDO = (Undo(sh('pkill -KILL -f "$1"; true', RUNS)),)


class Refuse(_Impostor):
    """Refuse all connections, as a port without a listener does."""

    name: ClassVar[str] = "real-server.refuse"
    does: ClassVar[tuple[EffectKind, ...]] = (
        EffectKind.FAILS_CHECK,
        EffectKind.CHANGES_ANSWERS,
    )

    def command(self, lab: Lab, node: Node) -> tuple[str, ...]:
        """No program gets the port."""
        return (TAKE_PORT, PORT)

    def shows(self, answer: Answer) -> str:
        """The connection was refused."""
        return "refused" if answer.end == "refused" else ""


class Stall(_Impostor):
    """Accept connections and never answer."""

    name: ClassVar[str] = "real-server.stall"
    does: ClassVar[tuple[EffectKind, ...]] = (
        EffectKind.FAILS_CHECK,
        EffectKind.CHANGES_ANSWERS,
    )

    def shows(self, answer: Answer) -> str:
        """Silence after the connection."""
        return f"silent for {answer.ms} ms" if answer.end == "silent" and not answer.status else ""


class Reset(_Impostor):
    """Accept connections and reset them."""

    name: ClassVar[str] = "real-server.reset"
    does: ClassVar[tuple[EffectKind, ...]] = (
        EffectKind.FAILS_CHECK,
        EffectKind.CHANGES_ANSWERS,
    )

    def shows(self, answer: Answer) -> str:
        """The connection was reset."""
        return "reset" if answer.end == "reset" and not answer.status else ""


class Partial(_Impostor):
    """Send only the first part of each answer, and leave the connection open.

    ldirectord accepts such an answer if the part contains the text that it expects.
    """

    name: ClassVar[str] = "real-server.partial"
    share: float = Field(0.5, ge=0, lt=1, description="Share of the content to send, rounded up to bytes")

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """The share to send."""
        return {"share": self.share}

    def shows(self, answer: Answer) -> str:
        """Fewer bytes than announced, then silence."""
        announced = int(answer.fields.get("content-length", 0))
        if answer.end != "silent" or len(answer.content) >= announced:
            return ""
        return f"{len(answer.content)} of {announced} bytes, then silence"


class Slow(_Impostor):
    """Delay each answer, and limit its rate."""

    name: ClassVar[str] = "real-server.slow"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SLOWS,)
    delay_ms: int = Field(1000, ge=50, le=60_000, description="Delay of each answer, in ms")
    bytes_per_s: int = Field(0, ge=0, description="Rate of an answer after the delay, in bytes per second; 0: no limit")

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """Delay and rate."""
        return {"delay_ms": self.delay_ms, "bytes_per_s": self.bytes_per_s}

    def patience_s(self) -> float:
        """The delay, and the time for a small file."""
        return PATIENCE_S + self.delay_ms / 1000 + (1000 / self.bytes_per_s if self.bytes_per_s else 0)

    def shows(self, answer: Answer) -> str:
        """The answer came after the delay."""
        return f"{answer.status} after {answer.ms} ms" if answer.status and answer.ms >= self.delay_ms else ""


class Error(_Impostor):
    """Answer with an HTTP error, always or at a rate.

    The seed and the order of the requests decide which requests get the error.
    """

    name: ClassVar[str] = "real-server.error"
    status: int = Field(500, ge=400, le=599, description="HTTP status to answer with")
    rate: float = Field(1.0, ge=0.05, le=1, description="Share of requests that get the error")
    seed: int = Field(0, ge=0, lt=2**64, description="Seed for choosing requests when rate < 1")

    @property
    def kinds(self) -> tuple[EffectKind, ...]:
        """Below a rate of 1, a health check may pass."""
        return (*([EffectKind.FAILS_CHECK] if self.rate == 1 else []), *self.does)

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """Status, rate and seed."""
        return {"status": f"{self.status} {_phrase(self.status)}", "rate": self.rate, "seed": self.seed}

    def proven(self, shown: Sequence[str]) -> bool:
        """At a rate, the first error is enough."""
        return any(shown)

    def shows(self, answer: Answer) -> str:
        """The answer has the status."""
        return f"{answer.status}" if answer.status == self.status else ""


class WrongContent(_Impostor):
    """Answer every request with status 200 and a page that is not the site's, such as a default page."""

    name: ClassVar[str] = "real-server.wrong-content"
    does: ClassVar[tuple[EffectKind, ...]] = (
        EffectKind.FAILS_CHECK,
        EffectKind.CHANGES_ANSWERS,
    )
    content: str = Field("<h1>It works!</h1>\n", description="Content of every answer (ldirectord expects OK in it)")

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """The content to send."""
        return {"content": self.content}

    def shows(self, answer: Answer) -> str:
        """The answer has the content."""
        return f"200 with {answer.content!r}" if answer.status == 200 and answer.content == self.content else ""


class Redirect(_Impostor):
    """Redirect every request to the address of another real server.

    ldirectord follows the redirect, so its check passes.
    """

    name: ClassVar[str] = "real-server.redirect"
    to: str = Field(min_length=1, description="Name of the other real server")

    def target(self, lab: Lab) -> Node:
        """A real server beside another one."""
        node = super().target(lab)
        others = [other.name for other in lab.nodes("web") if other.name != self.node]
        if self.to not in others:
            raise LabError(f"{self.to!r} is not another real server", f"Other real servers: {', '.join(others)}.")
        return node

    def settings(self, lab: Lab, node: Node) -> dict[str, Any]:
        """For each address, the other server's address for the same VIP."""
        return {"to": dict(zip(addresses(lab, node.name), addresses(lab, self.to), strict=True))}

    def shows(self, answer: Answer) -> str:
        """The answer redirects."""
        return f"302 to {answer.fields.get('location')}" if answer.status == 302 else ""


class NoPhp(_RealServer):
    """Disable PHP: Apache still serves static files, but sends scripts as text, as after a failed upgrade.

    Undone by PHP's configuration and a graceful restart, which lets Apache finish the requests that it serves.
    """

    name: ClassVar[str] = "real-server.no-php"

    def require(self, node: Node) -> None:
        """A real server with PHP."""
        super().require(node)
        if not running(node).exec("sh", "-c", f"ls {CONFIGURATION}").ok:
            raise LabError(f"{node.name} has no PHP")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """An empty file covers the configuration that passes scripts to PHP."""
        node = running(lab.node(self.node))
        scripts, files = self.seen(lab, node, PHP), self.seen(lab, node)
        apply = sh(DISABLE_PHP)

        def lost() -> str:
            for address, answer in scripts().items():
                if not _source(answer):
                    raise NotYet(f"{address}{PHP}: {answer}")
            for address, answer in files().items():
                if answer.status != 200:
                    raise NotYet(f"{address}{STATIC}: {answer}")
            return f"{node.name} serves {PHP} as text, and {STATIC} as before"

        def back() -> None:
            for address, answer in scripts().items():
                if not answer.status or _source(answer):
                    raise NotYet(f"{address}{PHP}: {answer}")

        return [
            Change(node, "PHP", lambda: must(node, *apply), (Undo(sh(ENABLE_PHP)),), lost, back, again=(Undo(apply),))
        ]


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"


def _source(answer: Answer) -> bool:
    return answer.content.lstrip().startswith("<?php")


CONFIGURATION = "/etc/apache2/mods-available/php*.conf"
"""Debian's; it has the SetHandler for PHP scripts."""
EMPTY = f"{STATE}/no-php.conf"
GRACEFUL = f'read -r pid < {SERVICES}/apache/supervise/pid && kill -USR1 "$pid"\n'
"""Apache's manual, "Stopping and Restarting": what ``apachectl graceful`` sends."""
DISABLE_PHP = f"""
mkdir -p {EMPTY.rpartition("/")[0]}
: > {EMPTY}
for file in {CONFIGURATION}; do mount --bind {EMPTY} "$file" || exit 1; done
{GRACEFUL}"""
ENABLE_PHP = f"""
[ -e {EMPTY} ] || exit 0
for file in {CONFIGURATION}; do umount "$file" 2> /dev/null; done
rm -f {EMPTY}
{GRACEFUL}true
"""
