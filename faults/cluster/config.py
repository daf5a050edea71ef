"""Faults of one director's configuration: another key, or a setting that differs from the peer's."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from faults.cluster.directors import TAKEOVER_S, DirectorFault, each_serves_all
from faults.cluster.operator import OPERATOR, RESTART_S, SETTLE, SETTLED, settled
from faults.fault import Change, must, running, seen, sh
from faults.programs import SERVICES
from faults.targets import other_director
from harness.formats import ha_cf, haresources, ldirectord_cf
from harness.protocols import Lab, Node
from harness.records import Effect, EffectKind, LabError, Undo
from harness.wait import NotYet

AUTHKEYS = "/etc/ha.d/authkeys"


def restored(path: str, content: str, mode: str) -> Undo:
    """The step that restores a file's content and mode, if they differ."""
    script = """
    printf %s "$2" | base64 -d | cmp -s - "$1" && [ "$(stat -c %a "$1")" = "$3" ] && exit 0
    printf %s "$2" | base64 -d > "$1.monkeywrench" && chmod "$3" "$1.monkeywrench" && mv "$1.monkeywrench" "$1"
    """
    return Undo(sh(script, path, base64.b64encode(content.encode()).decode(), mode))


RELOAD = Undo(("/usr/libexec/heartbeat/heartbeat", "-r"))
"""heartbeat reads its configuration again, if it has changed (heartbeat(8))."""


def another_key(authkeys: str) -> str:
    """The same methods with other keys (file format: heartbeat(8)). Raises LabError. Pure."""
    changed = re.sub(r"(?m)^(\d+\s+(?:sha1|md5)\s+).*$", r"\1monkeywrench", authkeys)
    if changed == authkeys:
        raise LabError("authkeys has no sha1 or md5 key to change")
    return changed


class AuthkeysChanged(DirectorFault):
    """Change the key on one director, so that each director rejects the other's messages as forged.

    heartbeat reloads the key. Undone by the old file, reloaded; the directors then recover on their own, unless
    ``settle`` is set.
    """

    name: ClassVar[str] = "cluster.authkeys-changed"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.CHANGES_CONFIG,)
    settle: bool = SETTLED

    def effects(self, lab: Lab) -> tuple[Effect, ...]:
        """Each director takes over the other's VIPs."""
        return (*super().effects(lab), *(Effect(EffectKind.DOUBLES_ADDRESS, node) for node in lab.cluster.directors))

    def changes(self, lab: Lab) -> Sequence[Change]:
        """authkeys, with mode 600, which heartbeat requires."""
        node, peer = running(lab.node(self.node)), other_director(lab, self.node)
        before = must(node, "cat", AUTHKEYS).stdout
        changed = another_key(before).encode()

        def apply() -> None:
            node.put(AUTHKEYS, changed, 0o600)
            must(node, *RELOAD.argv)

        def alone() -> str:
            return f"the keys of {peer.name} and {node.name} differ; {each_serves_all(lab)}"

        def same() -> None:
            seen(node, lambda done: done.stdout == before, "the same key", "cat", AUTHKEYS)
            if self.settle:
                settled(lab, node)

        within_s = lab.cluster.deadtime_ms / 1000 + TAKEOVER_S
        undo = (restored(AUTHKEYS, before, "600"), RELOAD, *([OPERATOR] if self.settle else []))
        return [Change(node, f"file {AUTHKEYS}", apply, undo, alone, same, proof_within_s=within_s)]


File = Literal["ha.cf", "haresources", "ldirectord.cf"]


def settings_of(file: File, text: str) -> list[tuple[int, str]]:
    """The line and the name of each setting; of haresources, the director of each line. Pure."""
    if file == "ha.cf":
        return [(directive.line, directive.name) for directive in ha_cf.parse(text)]
    if file == "haresources":
        return [(group.line, group.node) for group in haresources.parse(text)]
    config = ldirectord_cf.parse(text)
    nested = [setting for service in config.services for setting in service.settings]
    reals = [(real.line, "real") for service in config.services for real in service.reals]
    virtual = [(service.line, "virtual") for service in config.services]
    return [*((setting.line, setting.name) for setting in (*config.settings, *nested)), *virtual, *reals]


def drifted(file: File, text: str, setting: str, value: str) -> tuple[str, str]:
    """The file's text with another value on each line of a setting, and the old value. Raises LabError. Pure."""
    numbers = sorted(number for number, name in settings_of(file, text) if name == setting)
    if not numbers:
        raise LabError(f"{file} does not set {setting}")
    lines = text.split("\n")
    old = [_value(file, lines[number - 1]) for number in numbers]
    for number, was in zip(numbers, old, strict=True):
        line = lines[number - 1]
        lines[number - 1] = line[: len(line) - len(was)] + value
    changed = "\n".join(lines)
    if changed == text:
        raise LabError(f"{setting} is already {value} in {file}")
    return changed, old[0]


def _value(file: File, line: str) -> str:
    """What a line sets: all after ``=`` in ldirectord.cf, and after the first word in the others."""
    words = line.split("=", 1) if file == "ldirectord.cf" else line.split(None, 1)
    return words[1].lstrip() if len(words) > 1 else ""


class ConfigurationDrift(DirectorFault):
    """Change one setting on one director only, as if the other had been forgotten. Undone by the old file.

    With ``restart`` the daemon uses the setting at once, otherwise from its next start. heartbeat restarts cleanly: its
    resources move to the peer before it starts again.
    """

    name: ClassVar[str] = "cluster.configuration-drift"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.CHANGES_CONFIG,)
    file: File = Field("ldirectord.cf", description="File in /etc/ha.d")
    setting: str = Field("checkinterval", min_length=1, description="Name of the setting; in haresources, the director")
    value: str = Field("10", min_length=1, pattern=r"^[^\r\n]+$", description="New value")
    restart: bool = Field(False, description="Restart the daemon after the change and after the undo")

    @property
    def concerns(self) -> str:
        """The daemon that reads the file."""
        return "ldirectord" if self.file == "ldirectord.cf" else "heartbeat"

    @property
    def kinds(self) -> tuple[EffectKind, ...]:
        """With ``restart``, the daemon restarts."""
        return (*self.does, *([EffectKind.RESTARTS] if self.restart else []))

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A file, and perhaps the daemon that reads it."""
        node, peer, path = running(lab.node(self.node)), other_director(lab, self.node), f"/etc/ha.d/{self.file}"
        before, mode = must(node, "cat", path).stdout, must(node, "stat", "-c", "%a", path).stdout.strip()
        changed, old = drifted(self.file, before, self.setting, self.value)
        restart = RESTARTS["ldirectord" if self.file == "ldirectord.cf" else "heartbeat"]
        pid = _daemon(node, self.file)

        def apply() -> None:
            node.put(path, changed.encode(), int(mode, 8))
            if self.restart:
                must(node, *restart.argv, timeout_s=RESTART_S)

        def differs() -> str:
            if must(node, "cat", path).stdout != changed or peer.exec("cat", path).stdout == changed:
                raise NotYet(f"{path} is the same on {node.name} and {peer.name}")
            what = f"{self.file} sets {self.setting} to {self.value} on {node.name}, and to {old} on {peer.name}"
            if not self.restart:
                return what
            if not (now := _daemon(node, self.file)):
                raise NotYet(
                    f"no daemon runs since {self.file} sets {self.setting} to {self.value}; it may reject the value"
                )
            if now == pid:
                raise NotYet(f"process {pid} has not restarted yet")
            return f"{what}; process {now} has started with it"

        def same() -> None:
            seen(node, lambda done: done.stdout == before, "the same file", "cat", path)

        undo = (restored(path, before, mode), *([restart] if self.restart else []))
        return [Change(node, f"file {path}", apply, undo, differs, same, proof_within_s=RESTART_S)]


RESTARTS = {"heartbeat": Undo((SETTLE,)), "ldirectord": Undo(("sv", "-w", "30", "restart", f"{SERVICES}/ldirectord"))}


def _daemon(node: Node, file: File) -> str:
    """The pid of the daemon that reads a file; empty when it does not run."""
    pid_file = f"{SERVICES}/ldirectord/supervise/pid" if file == "ldirectord.cf" else "/run/heartbeat.pid"
    return node.exec("cat", pid_file).stdout.strip()
