"""How long a fault takes from ``inject`` to its effect, beside Docker's own verbs and Chaos Toolkit: ``make bench``.

The effect is there at the latest when the last change has been made, which every proof says (``applied_ms``); gathering
the proof comes after it and is not counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker.errors

from faults import FAULTS
from topology.lab import engine
from topology.lab.docker_lab import DockerLab

TIMES = 50
POWER_TIMES = 20
"""A power cut is undone by a boot."""
CHAOS_TIMES = 5
LABEL = "bench-floor"

CASES: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "node.power-off": (POWER_TIMES, {"node": "web-6"}),
    "node.freeze": (TIMES, {"node": "web-6"}),
    "network.cut": (TIMES, {"cable": "web-6.eth0"}),
    "network.cut of a port": (TIMES, {"cable": "web-6.eth0", "protocol": "tcp", "port": 80}),
    "process.kill": (TIMES, {"node": "web-6", "service": "gmond"}),
}

AIMS = {"node.power-off": "50", "network.cut": "100", "network.cut of a port": "100", "process.kill": "100"}


def faults_table(lab: DockerLab, image: str, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Each row's times in ms."""
    rows: dict[str, list[float]] = {}
    for name, (times, settings) in CASES.items():
        say(f"{name}, {times} times")
        rows[name] = [_effect_ms(lab, name, settings) for _ in range(times)]
    with _idle(image) as container:
        say("Docker's own verbs")
        rows |= _docker(container)
        say("Chaos Toolkit")
        rows |= _chaos_toolkit(container.name)
    return rows


def _effect_ms(lab: DockerLab, name: str, settings: Mapping[str, Any]) -> float:
    with FAULTS[name.partition(" ")[0]](**settings).inject(lab) as proof:
        return float(proof.detail["applied_ms"])


@contextmanager
def _idle(image: str) -> Iterator[Any]:
    """An idle container, and a network of its own that it is on."""
    client = engine.connect()
    container = client.containers.run(
        image, ["sleep", "infinity"], detach=True, init=True, network_mode="none", labels={engine.LABEL: LABEL}
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def _ms(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def _docker(container: Any) -> dict[str, list[float]]:
    kill, pause = [], []
    for _ in range(TIMES):
        pause.append(_ms(container.pause))
        container.unpause()
        kill.append(_ms(container.kill))
        container.start()
    return {"docker kill": kill, "docker pause": pause, "docker network disconnect": _disconnect(container)}


def _disconnect(container: Any) -> list[float]:
    """Empty where this engine has no networks (it was started without a bridge)."""
    client, found = engine.connect(), list[float]()
    try:
        network = client.networks.create("monkeywrench-bench", internal=True, labels={engine.LABEL: LABEL})
    except docker.errors.APIError:  # an engine without networks
        return []
    other = client.containers.run(
        container.image,
        ["sleep", "infinity"],
        detach=True,
        init=True,
        network=network.name,
        labels={engine.LABEL: LABEL},
    )
    try:
        for _ in range(TIMES):
            found.append(_ms(lambda: network.disconnect(other)))
            network.connect(other)
    finally:
        other.remove(force=True)
        network.remove()
    return found


def _chaos_toolkit(container: str) -> dict[str, list[float]]:
    """The same through its process provider, from an environment of its own; empty where it cannot be installed."""
    action, command = [], []
    experiment = {
        "title": "pause",
        "description": "pause a container",
        "method": [
            {
                "type": "action",
                "name": "pause",
                "provider": {"type": "process", "path": "docker", "arguments": f"pause {container}"},
            }
        ],
    }
    with tempfile.TemporaryDirectory() as folder, suppress(subprocess.CalledProcessError, FileNotFoundError):
        python, chaos = Path(folder) / "venv/bin/python", Path(folder) / "venv/bin/chaos"
        _quietly(sys.executable, "-m", "venv", f"{folder}/venv")
        _quietly(str(python), "-m", "pip", "install", "-q", "chaostoolkit")
        (Path(folder) / "pause.json").write_text(json.dumps(experiment))
        for _ in range(CHAOS_TIMES):
            command.append(_ms(lambda: _quietly(str(chaos), "run", "pause.json", cwd=folder)))
            journal = json.loads((Path(folder) / "journal.json").read_text())
            action.append(journal["run"][0]["duration"] * 1000)
            _quietly("docker", "unpause", container)
    return {"Chaos Toolkit: docker pause": action, "Chaos Toolkit: the whole command": command}


def _quietly(*argv: str, cwd: str | None = None) -> None:
    subprocess.run(argv, check=True, capture_output=True, cwd=cwd)


def summary(times_ms: list[float]) -> tuple[str, str, str]:
    """How many, the median and the 99th percentile (nearest rank); dashes where there are none."""
    if not times_ms:
        return "0", "-", "-"
    ordered = sorted(times_ms)
    return str(len(ordered)), f"{statistics.median(ordered):.1f}", f"{ordered[-(-99 * len(ordered) // 100) - 1]:.1f}"
