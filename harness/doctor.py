"""What a lab needs of a machine: looked at, never changed."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.records import LabError

DISK_GIB = 6
"""Images of all roles, their build layers, and some room."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    ok: bool
    seen: str
    next_step: str = ""
    warning: bool = False
    """Nothing is missing, but this is known to bite."""


def examine(topology: str) -> list[Finding]:
    """All findings for a topology on this machine and its Docker Engine."""
    questions: list[tuple[str, Callable[[], Finding]]] = [
        ("processor", _processor),
        ("engine", _engine),
        ("disk", _disk),
        ("topology", lambda: _topology(topology)),
        ("memory", lambda: _memory(topology)),
        ("kernels", lambda: _kernels(topology)),
        ("images", _images),
    ]
    return [_answer(what, question) for what, question in questions] + _pitfalls(topology)


def _answer(what: str, question: Callable[[], Finding]) -> Finding:
    try:
        return question()
    except LabError as error:
        return Finding(what, False, str(error), error.next_step)


def _processor() -> Finding:
    machine = platform.machine()
    if machine in ("x86_64", "amd64"):
        return Finding("processor", True, f"{machine}, {os.cpu_count()} cores: nodes can have kernels of their own")
    return Finding(
        "processor", True, f"{machine}: User-Mode Linux does not exist for it, nodes share the host's kernel"
    )


def _engine() -> Finding:
    from topology.lab import engine  # only the doctor's own call needs Docker

    version = engine.connect().version()
    return Finding("engine", True, f"{version['Version']} (API {version['ApiVersion']}) at {engine.address()}")


def _disk() -> Finding:
    from topology.lab import engine

    root = Path(engine.connect().info()["DockerRootDir"])
    if not root.exists():
        return Finding("disk", True, f"the engine keeps its data at {root} on another machine; not looked at")
    free_gib = shutil.disk_usage(root).free / 2**30
    next_step = "" if free_gib >= DISK_GIB else f"Free some space at {root}."
    return Finding("disk", free_gib >= DISK_GIB, f"{free_gib:.0f} GiB free at {root}, {DISK_GIB} wanted", next_step)


def _topology(name: str) -> Finding:
    from topology import model

    topology = model.load(name)
    return Finding("topology", True, f"{topology.name}: {len(topology.machines)} nodes, {len(topology.vips)} VIPs")


def _pitfalls(name: str) -> list[Finding]:
    """What is known to bite in the user's own files, as the nodes would have them."""
    from topology import lint, model, render

    try:
        topology = model.load(name)
        configs = [
            lint.Config(machine.name, file.path, file.data.decode("utf-8", "replace"), file.mode, file.source)
            for machine in topology.machines
            for file in render.files(topology, machine, "doctor", "doctor")
        ]
    except LabError:
        return []  # the question about the topology says so
    found = lint.examine(configs, web=len(topology.of_role("web")))
    return [
        Finding(
            f"{pitfall.file}:{pitfall.line}" if pitfall.line else pitfall.file,
            True,
            f"{pitfall.reason} (on {', '.join(pitfall.nodes)})",
            warning=True,
        )
        for pitfall in found
    ]


def _memory(name: str) -> Finding:
    from topology import model
    from topology.lab import engine, kernel

    wanted_mib = sum(m.memory_mib + kernel.OVERHEAD_MIB for m in model.load(name).machines if m.kernel == "uml")
    have_mib = engine.connect().info()["MemTotal"] // 2**20
    next_step = "" if have_mib >= wanted_mib else "Lower memory_mib or count in the topology."
    return Finding(
        "memory", have_mib >= wanted_mib, f"{have_mib} MiB in all, {wanted_mib} MiB wanted at most", next_step
    )


def _kernels(name: str) -> Finding:
    from topology import model
    from topology.lab import engine, kernel

    architecture = engine.connect().version().get("Arch", "")
    topology = model.load(name)
    choices = {
        m.name: kernel.choose(m, architecture, lambda _: True, model.needs_own_kernel(topology, m))
        for m in topology.machines
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
        return Finding("images", True, f"to be built at the first `up`, from Debian's packages: {', '.join(missing)}")
    return Finding("images", True, "all built")
