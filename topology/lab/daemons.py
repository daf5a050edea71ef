"""Asking the real programs about the nodes' files, in containers that are thrown away."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.interrupts import deferring_signals
from harness.records import LabError
from topology.daemons import OUTSIDE, Question, findings, inside, merged, questions
from topology.files import files_of
from topology.lab import image
from topology.lint.model import Config, LintFinding, matches
from topology.model import Topology

LABEL = "monkeywrench.throwaway"
FOLDER = "monkeywrench-question"
"""Below the root of the container."""
WITHIN_S = 120
"""For all questions of a container. They take seconds; a machine may be busy."""
AT_ONCE = 4


def ask(client: Any, topology: Topology) -> tuple[list[LintFinding], list[str]]:
    """What the programs say about the files of all nodes, and the roles whose images are not built. Raises LabError."""
    asked = questions(
        (machine.name, machine.role, [name for name, _ in topology.interfaces(machine)], _files(topology, machine))
        for machine in topology.machines
    )
    images = image.names()
    there = {role for role in {question.role for question in asked} if image.exists(client, images[role])}
    with deferring_signals(), ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        jobs = [(each, pool.submit(answer, client, images[each.role], each)) for each in asked if each.role in there]
        found = [finding for question, job in jobs for finding in findings(question, job.result())]
    return merged(found), sorted({question.role for question in asked} - there)


def _files(topology: Topology, machine: Any) -> dict[Config, bytes]:
    return {
        Config(machine.name, file.path, file.data.decode("utf-8", "replace"), file.mode, file.source): file.data
        for file in files_of(topology, machine, "doctor", "doctor")
        if not matches(file.path, OUTSIDE)
    }


def answer(client: Any, name: str, question: Question) -> Iterable[inside.Complaint]:
    """Run ``inside.py`` in a container without a network. The container is removed, whatever happens."""
    container = client.containers.create(
        name,
        ["/usr/bin/python3", "-I", "-S", f"/{FOLDER}/inside.py"],
        entrypoint=[],
        hostname=question.nodes[0],
        network_mode="none",
        cap_add=["NET_ADMIN"],  # for interfaces with the node's names, in the container's own network namespace
        labels={LABEL: question.role},
    )
    try:
        container.put_archive("/", _packed(question))
        container.start()
        code = container.wait(timeout=WITHIN_S)["StatusCode"]
        printed = container.logs(stdout=True, stderr=False).decode()
        if code:
            why = container.logs(stdout=False, stderr=True).decode("utf-8", "replace")
            raise LabError(f"the programs of {question.nodes[0]} could not be asked: {why.strip()[-400:]}")
        return [inside.Complaint(**each) for each in json.loads(printed)]
    finally:
        container.remove(force=True)


def _packed(question: Question) -> bytes:
    own = {
        f"/{FOLDER}/inside.py": (Path(inside.__file__).read_bytes(), 0o644),
        f"/{FOLDER}/question.json": (question.text.encode(), 0o644),
    }
    theirs = {config.path: (question.data[config.path], config.mode) for config in question.files}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, (data, mode) in {**theirs, **own}.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
