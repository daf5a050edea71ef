"""Whether a machine can run a lab. Changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from harness.records import LabError

if TYPE_CHECKING:
    from topology.lint import LintFinding
    from topology.model import Topology

DISK_GIB = 9
"""For the images of all roles, their build layers and the kernel's source (3 GB while it is built), with a reserve."""


@dataclass(frozen=True)
class Finding:
    """The result of one question."""

    what: str
    ok: bool
    seen: str
    next_step: str = ""
    warning: bool = False
    """Nothing is missing, but this is a known cause of trouble."""


Question: TypeAlias = tuple[str, Callable[[], Finding]]


def examine(name: str, offline: bool = False) -> list[Finding]:
    """All findings for the topology with that name (or file) on this machine and its Docker Engine.

    ``offline`` leaves out the questions to the nodes' own programs.
    """
    from topology.load import load  # the harness knows no topology but here

    machine: list[Question] = [
        ("processor", _processor),
        ("engine", _engine),
        ("disk", _disk),
        ("images", _images),
        ("kernel", _kernel),
    ]
    findings = [_answer(*question) for question in machine]
    try:
        topology = load(name)
    except LabError as error:
        return [*findings, Finding("topology", False, str(error), error.next_step)]
    lab: list[Question] = [
        ("topology", lambda: _topology(topology)),
        ("memory", lambda: _memory(topology)),
        ("kernels", lambda: _kernels(topology)),
    ]
    return findings + [_answer(*question) for question in lab] + programs(topology, offline) + lint(topology)


def _answer(what: str, question: Callable[[], Finding]) -> Finding:
    try:
        return question()
    except LabError as error:
        return Finding(what, False, str(error), error.next_step)


def _processor() -> Finding:
    machine = platform.machine()
    if machine in ("x86_64", "amd64"):
        return Finding("processor", True, f"{machine}, {os.cpu_count()} cores: nodes can run their own kernels")
    return Finding("processor", True, f"{machine}: User-Mode Linux does not support it; nodes share the host's kernel")


def _engine() -> Finding:
    from topology.lab import engine  # only the doctor's own call needs Docker

    version = engine.connect().version()
    return Finding("engine", True, f"{version['Version']} (API {version['ApiVersion']}) at {engine.address()}")


def _disk() -> Finding:
    from topology.lab import engine

    root = Path(engine.connect().info()["DockerRootDir"])
    if not root.exists():
        return Finding("disk", True, f"not checked: the engine keeps its data at {root} on another machine")
    free_gib = shutil.disk_usage(root).free / 2**30
    next_step = "" if free_gib >= DISK_GIB else f"Free at least {DISK_GIB - free_gib:.0f} GiB at {root}."
    return Finding(
        "disk", free_gib >= DISK_GIB, f"{free_gib:.0f} GiB free at {root} ({DISK_GIB} GiB needed)", next_step
    )


def _topology(topology: Topology) -> Finding:
    return Finding("topology", True, f"{topology.name}: {len(topology.machines)} nodes, {len(topology.vips)} VIPs")


def lint(topology: Topology) -> list[Finding]:
    """What the lint rules find in the nodes' files, overlays included."""
    from topology import lint as rules
    from topology.files import files_of

    configs = [
        rules.Config(machine.name, file.path, file.data.decode("utf-8", "replace"), file.mode, file.source)
        for machine in topology.machines
        for file in files_of(topology, machine, "doctor", "doctor")
    ]
    facts = rules.LabFacts(
        {str(vip.address): vip.home for vip in topology.vips},
        frozenset(str(each) for machine in topology.machines for group in machine.addresses.values() for each in group),
        topology.directors.auto_failback,
        topology.web_data.master if topology.web_data else "",
    )
    found = rules.examine(configs, len(topology.of_role("web")), facts)
    return [_warning(each) for each in found]


def programs(topology: Topology, offline: bool = False) -> list[Finding]:
    """What the nodes' own programs say about their files, and whether they were asked."""
    if offline:
        return [Finding("programs", True, "not asked (--offline): only the lint rules have looked at the files")]
    from topology.lab import daemons, engine

    try:
        said, missing = daemons.ask(engine.connect(), topology)
    except LabError as error:
        return [Finding("programs", False, str(error), error.next_step)]
    summary = Finding(
        "programs", True, f"{len(said)} complaint{'s' if len(said) > 1 else ''}" if said else "accept all files"
    )
    if missing:
        left_out = f"not asked about the files of {' and '.join(missing)} nodes, whose images are not built yet"
        summary = Finding("programs", True, left_out, "Run `monkeywrench build`, then this again.", warning=True)
    return [summary, *map(_warning, said)]


def _warning(rule: LintFinding) -> Finding:
    where = f"{rule.file}:{rule.line}" if rule.line else rule.file
    return Finding(where, True, f"{rule.reason} (on {', '.join(rule.nodes)})", warning=True)


def _memory(topology: Topology) -> Finding:
    from topology.lab import engine, kernel

    wanted_mib = sum(m.memory_mib + kernel.OVERHEAD_MIB for m in topology.machines if m.kernel == "uml")
    have_mib = engine.connect().info()["MemTotal"] // 2**20
    next_step = "" if have_mib >= wanted_mib else "Lower memory_mib or count in the topology."
    return Finding(
        "memory",
        have_mib >= wanted_mib,
        f"{have_mib} MiB installed (the lab needs at most {wanted_mib} MiB)",
        next_step,
    )


def _kernels(topology: Topology) -> Finding:
    from topology.lab import engine, kernel
    from topology.model import needs_own_kernel

    architecture = engine.connect().version().get("Arch", "")
    choices = {
        m.name: kernel.choose(m, architecture, lambda _: True, needs_own_kernel(topology, m)) for m in topology.machines
    }
    kinds = {choice: [node for node, of in choices.items() if of == choice] for choice in set(choices.values())}
    seen = "; ".join(
        f"{', '.join(nodes)}: {choice.kernel} ({choice.why})" for choice, nodes in sorted(kinds.items(), key=str)
    )
    return Finding("kernels", True, seen)


def _images() -> Finding:
    from topology.lab import engine, image

    client = engine.connect()
    missing = [role for role, name in image.names().items() if not image.exists(client, name)]
    if missing:
        return Finding("images", True, f"not built yet; the first `monkeywrench up` builds them: {', '.join(missing)}")
    return Finding("images", True, "all built")


def _kernel() -> Finding:
    from topology.lab import engine, image

    return kernel_finding(image.exists(engine.connect(), image.own_kernel()))


def kernel_finding(built: bool) -> Finding:
    """About the kernels that nodes get. Pure."""
    own = "the one built from source" if built else "one that the first of these labs builds, in about 8 minutes"
    return Finding("kernel", True, f"in real time Debian's; in virtual time {own}")
