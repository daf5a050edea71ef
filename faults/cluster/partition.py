"""Faults of the cluster as a whole: its directors lose sight of each other, disagree, or come back at a bad moment."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from faults.fault import EVERY_S, Change, NodeFault, SimpleFault, must, running, seen, sh
from faults.heartbeat import HA_CF, media
from faults.network import nft
from faults.network.cables import counted, table_change
from faults.network.nft import Frames, Hook
from faults.node import BOOT, answers
from harness.protocols import Lab, Node
from harness.records import Cable, LabError, Power, Undo
from harness.wait import NotYet, Timeout, until

AUTHKEYS = "/etc/ha.d/authkeys"
SETTLE = "/usr/lib/monkeywrench/faults/settle"
ANNOUNCE = "/usr/lib/monkeywrench/faults/announce"

TAKEOVER_S = 120.0
"""A death is noticed after deadtime; then scripts start one resource after another, which can take a crowded machine
ten times as long as the 3 s that it takes by itself."""

BY_THEMSELVES_S = 60.0
"""A failback takes 5 s to 10 s, and some 40 s on a crowded machine."""

ANNOUNCE_S = 30.0
"""Two announcements of each address, a second apart (arping(8))."""

FOLLOW_S = 30.0
"""An announcement is heard at once; a crowded machine needs a while to look at all nodes."""

RESTART_S = 150.0
"""Stopping heartbeat lets go of its resources, the peer takes them, and then it starts: all of it scripts."""


def other(lab: Lab, name: str) -> Node:
    """The director that is not this one. Raises LabError where there is no such pair."""
    names = [node.name for node in lab.nodes("director")]
    if name not in names or len(names) != 2:
        raise LabError(f"{name} is not one of two directors", f"The directors are: {', '.join(names)}.")
    return next(node for node in lab.nodes("director") if node.name != name)


def pair(lab: Lab) -> list[Node]:
    """The two directors, if both run. Raises LabError."""
    found = lab.nodes("director")
    if len(found) != 2:
        raise LabError(f"this lab has {len(found)} directors; this takes two")
    return [running(node) for node in found]


def says(node: Node, *question: str) -> str:
    """What a director's heartbeat answers (cl_status(1)); nothing when it does not run."""
    return node.exec("cl_status", *question).stdout.strip()


def each_serves_all(lab: Lab) -> str:
    """See that each director calls the other dead, and has every address. Raises NotYet.

    What heartbeat itself says that it holds is not asked: the word of mach_down that a takeover is complete can get
    lost on its way to it (``ERROR: msg2string: Message with zero fields``), and then that stays "transition".
    """
    one, two = pair(lab)
    for vip, holders in lab.owners().items():
        if len(holders) < 2:
            raise NotYet(f"{vip} is held by {' and '.join(holders) or 'nobody'}")
    for node, peer in ((one, two), (two, one)):
        if (status := says(node, "nodestatus", peer.name)) != "dead":
            raise NotYet(f"{node.name} calls {peer.name} {status}")
    return f"{one.name} and {two.name} call each other dead, and each holds every virtual IP address"


def serves_all_alone(lab: Lab, node: Node) -> str:
    """See that one director holds everything and no takeover is under way. Raises NotYet."""
    held_by(lab, dict.fromkeys(lab.cluster.vips, (node.name,)))
    if (resources := says(node, "rscstatus")) != "all":
        raise NotYet(f"{node.name} holds {resources}")
    return f"{node.name} alone holds every virtual IP address"


def held_by(lab: Lab, wanted: Mapping[str, tuple[str, ...]]) -> bool:
    """See that the virtual IP addresses are where they should be. Raises NotYet."""
    now = lab.owners()
    for vip, names in wanted.items():
        if now[vip] != names:
            raise NotYet(f"{vip} is held by {' and '.join(now[vip]) or 'nobody'}")
    return True


OPERATOR = Undo((SETTLE, "--if-needed"))
"""What an operator does when the directors do not find back by themselves to one owner of each address."""

SETTLES = 3


def settled(lab: Lab, director: Node) -> None:
    """See that each address is where it belongs; an operator who does not see it tries again. Raises Timeout."""
    for _ in range(SETTLES):
        try:
            until(lambda: in_place(lab), BY_THEMSELVES_S, "the addresses to be where they belong", 0.5)
            break
        except Timeout:
            must(director, SETTLE, timeout_s=RESTART_S)
    else:
        until(lambda: in_place(lab), BY_THEMSELVES_S, "the addresses to be where they belong", 0.5)
    for node in pair(lab):
        must(node, ANNOUNCE, timeout_s=ANNOUNCE_S)
    until(lambda: all_follow(lab), FOLLOW_S, "everybody to know who has each address", 0.5)


def in_place(lab: Lab) -> str:
    """See that each address has one owner, and with auto_failback that it is at home. Raises NotYet."""
    if lab.cluster.auto_failback:
        held_by(lab, {vip: (home,) for vip, home in lab.cluster.vips.items()})
        return "Each address is at home"
    one_owner(lab)
    return "Each address has one owner"


def all_follow(lab: Lab) -> str:
    """See that nobody sends what is for an address to a director that has not got it. Raises NotYet."""
    if stale_neighbours := lab.status().stale_neighbours:
        raise NotYet("; ".join(map(str, stale_neighbours)))
    return "Every node that knows one of the addresses knows the director that has it"


SETTLED: bool = Field(
    False,
    description="When it is undone and the directors do not find back by themselves, restart heartbeat on one of them",
)


# --- heartbeat's paths


def heartbeat_paths(lab: Lab) -> tuple[dict[str, list[Cable]], int]:
    """The directors' cables on each segment that their ha.cf lets heartbeat use, and the port. Raises LabError."""
    found: dict[str, list[Cable]] = {}
    port = 0
    for node in pair(lab):
        interfaces, port = media(must(node, "cat", HA_CF).stdout)
        for cable in lab.cables:
            if cable.node == node.name and cable.interface in interfaces:
                found.setdefault(cable.segment, []).append(cable)
    return {segment: cables for segment, cables in found.items() if len(cables) == 2}, port


def silence(cables: Sequence[Cable], frames: Frames) -> list[Hook]:
    """Where the switch forwards heartbeat's messages of these cables. Pure."""
    return [
        Hook(f"from_{number}", "forward", (), tuple(f'iifname "{cable.name}" {match}' for match in frames.matches()))
        for number, cable in enumerate(cables, start=1)
    ]


class _Silence(SimpleFault):
    """heartbeat's messages are dropped in the switch, and nothing else is."""

    def cut(self, lab: Lab, segment: str, cables: Sequence[Cable], frames: Frames) -> Change:
        """One path, both ways."""
        table = nft.fresh()
        ruleset = nft.dropping(table, silence(cables, frames))

        def dropped() -> str:
            hits = {way: n for way, n in counted(lab, "bridge", table).items() if way.startswith("hit_")}
            if not all(hits.values()):
                raise NotYet(f"dropped so far: {hits}")
            return f"{sum(hits.values())} of heartbeat's messages on {segment} were dropped, of both directors"

        return table_change(lab, table, "bridge", lambda: must(lab.switch, "nft", ruleset), dropped, frames)


class SplitBrain(_Silence):
    """Drop heartbeat's messages on all its paths, both ways, so that each director takes the other for dead.

    All other traffic goes on. Undone by letting the messages through; what the directors then make of it is theirs,
    unless an operator is to ``settle`` it.
    """

    name: ClassVar[str] = "cluster.split-brain"
    settle: bool = SETTLED

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change for each path; and what comes of all of them."""
        paths, port = heartbeat_paths(lab)
        cuts = [self.cut(lab, segment, cables, Frames("udp", port)) for segment, cables in paths.items()]
        director = pair(lab)[0]
        split = Change(
            director,
            "sight of its peer",
            lambda: None,
            (OPERATOR,) if self.settle else (),
            lambda: each_serves_all(lab),
            lambda: settled(lab, director) if self.settle else None,
            proof_within_s=lab.cluster.deadtime_ms / 1000 + TAKEOVER_S,
        )
        return [split, *cuts]  # undone from the last to the first


class OnePathCut(_Silence):
    """Drop heartbeat's messages on one of its paths, both ways. Nothing should come of it."""

    name: ClassVar[str] = "cluster.one-path-cut"
    path: str = Field("heartbeat", min_length=1, description="The segment")

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        segments = {cable.segment for cable in lab.cables}
        return None if self.path in segments else f"there is no segment {self.path}; there are {', '.join(segments)}"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change."""
        paths, port = heartbeat_paths(lab)
        if self.path not in paths:
            raise LabError(f"heartbeat has no path on {self.path}", f"It has: {', '.join(paths)}.")
        return [self.cut(lab, self.path, paths[self.path], Frames("udp", port))]


# --- what one director believes


class _DirectorFault(NodeFault):
    def possible(self, node: Node) -> str | None:
        """Needs a director."""
        return None if node.role == "director" else f"{node.name} is no director"


def restored(path: str, content: str, mode: str) -> Undo:
    """The step that gives a file its old content and mode, if it has not got them."""
    script = """
    printf %s "$2" | base64 -d | cmp -s - "$1" && [ "$(stat -c %a "$1")" = "$3" ] && exit 0
    printf %s "$2" | base64 -d > "$1.monkeywrench" && chmod "$3" "$1.monkeywrench" && mv "$1.monkeywrench" "$1"
    """
    return Undo(sh(script, path, base64.b64encode(content.encode()).decode(), mode))


RELOAD = Undo(("/usr/libexec/heartbeat/heartbeat", "-r"))
"""Read the configuration again, if it has changed (heartbeat(8))."""


def another_key(authkeys: str) -> str:
    """The same methods with other keys (the file is described in heartbeat(8)). Raises LabError. Pure."""
    changed = re.sub(r"(?m)^(\d+\s+(?:sha1|md5)\s+).*$", r"\1monkeywrench", authkeys)
    if changed == authkeys:
        raise LabError("there is no key in authkeys that could be changed")
    return changed


class AuthkeysChanged(_DirectorFault):
    """Change the key on one director, and let its heartbeat reload it: each takes the other's messages for forged.

    Undone by the old file, reloaded; what the directors then make of it is theirs, unless an operator is to ``settle``
    it.
    """

    name: ClassVar[str] = "cluster.authkeys-changed"
    settle: bool = SETTLED

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: authkeys, mode 600, or heartbeat would refuse it."""
        node, peer = running(lab.node(self.node)), other(lab, self.node)
        before = must(node, "cat", AUTHKEYS).stdout
        changed = another_key(before).encode()

        def apply() -> None:
            node.put(AUTHKEYS, changed, 0o600)
            must(node, *RELOAD.argv)

        def alone() -> str:
            return f"{peer.name} has another key than {node.name}; {each_serves_all(lab)}"

        def same() -> None:
            seen(node, lambda said: said.stdout == before, "the same key", "cat", AUTHKEYS)
            if self.settle:
                settled(lab, node)

        within_s = lab.cluster.deadtime_ms / 1000 + TAKEOVER_S
        undo = (restored(AUTHKEYS, before, "600"), RELOAD, *([OPERATOR] if self.settle else []))
        return [Change(node, f"file {AUTHKEYS}", apply, undo, alone, same, proof_within_s=within_s)]


File = Literal["ha.cf", "haresources", "ldirectord.cf"]
LINES: dict[File, str] = {
    "ha.cf": r"({0}\s+)(.*)",
    "haresources": r"({0}\s+)(.*)",
    "ldirectord.cf": r"(\s*{0}\s*=\s*)(.*)",
}
"""A line of each file: what sets it, and to what. Of haresources, the director and its resources."""


def drifted(file: File, text: str, setting: str, value: str) -> tuple[str, str]:
    """The file's text with another value on each line of a setting, and the old value. Raises LabError. Pure."""
    pattern = re.compile("(?m)^" + LINES[file].format(re.escape(setting)) + "$")
    found = pattern.search(text)
    if not found:
        raise LabError(f"{file} does not set {setting}")
    changed = pattern.sub(lambda line: line[1] + value, text)
    if changed == text:
        raise LabError(f"{setting} is {value} in {file} already")
    return changed, found[2]


class ConfigurationDrift(_DirectorFault):
    """Change one setting on one director only, as a change that was forgotten on the other. Undone by the old file.

    With ``restart`` the daemon runs with it at once; without, it lies in wait for the next start. heartbeat is
    restarted in order: its resources are with the peer before it starts.
    """

    name: ClassVar[str] = "cluster.configuration-drift"
    file: File = Field("ldirectord.cf", description="Below /etc/ha.d")
    setting: str = Field("checkinterval", min_length=1, description="What is set; of haresources, the director")
    value: str = Field("10", min_length=1, pattern=r"^[^\r\n]+$", description="The other value")
    restart: bool = Field(False, description="Restart the daemon, when it is changed and when it is undone")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: a file, and what has been started with it."""
        node, peer, path = running(lab.node(self.node)), other(lab, self.node), f"/etc/ha.d/{self.file}"
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
            what = f"{self.setting} is {self.value} in {self.file} of {node.name}, and {old} in that of {peer.name}"
            if not self.restart:
                return what
            if not (now := _daemon(node, self.file)):
                raise NotYet(
                    f"no daemon has started with {self.setting} {self.value} in {self.file}; it may not take it"
                )
            if now == pid:
                raise NotYet(f"the daemon is still process {pid}")
            return f"{what}; process {now} has started with it"

        def same() -> None:
            seen(node, lambda said: said.stdout == before, "the same file", "cat", path)

        undo = (restored(path, before, mode), *([restart] if self.restart else []))
        return [Change(node, f"file {path}", apply, undo, differs, same, proof_within_s=RESTART_S)]


RESTARTS = {"heartbeat": Undo((SETTLE,)), "ldirectord": Undo(("sv", "-w", "30", "restart", "/run/service/ldirectord"))}


def _daemon(node: Node, file: File) -> str:
    """The id of the process that has read a file; empty when it does not run."""
    pid_file = "/run/service/ldirectord/supervise/pid" if file == "ldirectord.cf" else "/run/heartbeat.pid"
    return node.exec("cat", pid_file).stdout.strip()


# --- power, and the bad moment


class BothDirectors(SimpleFault):
    """Cut the power of both directors at once: nobody serves the site. Undone by powering them on."""

    name: ClassVar[str] = "cluster.both-directors"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change for each."""
        client, vips = lab.nodes("client")[0], tuple(lab.cluster.vips)  # now: nobody can be asked for them later

        def dark(node: Node) -> Callable[[], str]:
            def look() -> str:
                if node.power() is not Power.OFF:
                    raise NotYet(f"{node.name} is {node.power()}")
                return f"{node.name} is off"

            return look

        def silent() -> str:
            for vip in vips:
                if client.exec("ping", "-q", "-c", "1", "-W", "1", vip).ok:
                    raise NotYet(f"{vip} answers")
            return f"{client.name} gets no answer from any virtual IP address"

        def last(node: Node) -> Callable[[], str]:
            return lambda: f"{dark(node)()}; {silent()}"

        one, two = pair(lab)
        return [
            Change(one, "power", one.power_off, (BOOT,), dark(one), lambda: answers(one)),
            Change(two, "power", two.power_off, (BOOT,), last(two), lambda: answers(two)),
        ]


class FailbackDuringRecovery(_DirectorFault):
    """Let a director come back, with its addresses, just when its peer takes them over: both hold them.

    The machine stands still until its peer calls it dead, and goes on at that moment. Undone as an operator would,
    where the two do not find to one owner by themselves: heartbeat is stopped there, and started when the peer serves
    everything.
    """

    name: ClassVar[str] = "cluster.failback-during-recovery"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: a machine that was away."""
        node, peer = running(lab.node(self.node)), running(other(lab, self.node))
        mine = [vip for vip, holders in lab.owners().items() if holders == (node.name,)]
        if not mine:
            raise LabError(f"{node.name} holds no virtual IP address alone, so there is none to come back with")

        within_s = lab.cluster.deadtime_ms / 1000 + TAKEOVER_S

        def away() -> None:
            node.freeze()
            try:
                until(
                    lambda: says(peer, "nodestatus", node.name) == "dead", within_s, f"{peer.name} to notice", EVERY_S
                )
            finally:
                node.thaw()

        def both() -> str:
            now = lab.owners()
            doubled = [vip for vip in mine if len(now[vip]) > 1]
            if not doubled:
                raise NotYet(f"held: { {vip: now[vip] for vip in mine} }")
            return f"{peer.name} called {node.name} dead, which is back; both hold {', '.join(doubled)}"

        undo = (Undo(("thaw",), "power"), OPERATOR)
        return [Change(node, "power", away, undo, both, lambda: settled(lab, node), proof_within_s=TAKEOVER_S)]


def one_owner(lab: Lab) -> bool:
    """See that every virtual IP address has one. Raises NotYet."""
    for vip, holders in lab.owners().items():
        if len(holders) != 1:
            raise NotYet(f"{vip} is held by {' and '.join(holders) or 'nobody'}")
    return True


class Settle(SimpleFault):
    """Do what an operator does after the directors were of two minds, when they do not find back by themselves.

    heartbeat is restarted in order on one director where an address stays away from where it belongs; then each
    director announces the addresses that it holds (gratuitous ARP), as one that held them all the time has not done,
    though its peer may have had them meanwhile, and announced that. There is nothing to undo.
    """

    name: ClassVar[str] = "cluster.settle"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: who has which address, and who knows it."""
        director = pair(lab)[0]

        def in_order() -> str:
            return f"{in_place(lab)}. {all_follow(lab)}"

        return [Change(director, "peace", lambda: settled(lab, director), (), in_order, proof_within_s=FOLLOW_S)]
