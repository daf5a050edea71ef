"""The status of a lab: each part's question for each node, and what the answers mean. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.records import NodeStatus, Power, Status
from topology.model import Machine, Topology
from topology.parts import directors, parts_of
from topology.parts.part import Observations
from topology.parts.virtual_service import tables

MARK = "\x1e"
"""ASCII's record separator: before each part's name in what a node prints."""


def questions(topology: Topology, machine: Machine) -> dict[str, str]:
    """Each part's question for a node: a shell command."""
    asked = {part.name: part.probe_command(topology, machine) for part in parts_of(topology)}
    return {name: question for name, question in asked.items() if question}


def script(asked: Mapping[str, str]) -> str:
    """All questions in one script, so that a node runs a single command."""
    path = "PATH=$PATH:/usr/lib/monkeywrench"
    return "\n".join([path, *(f"printf '{MARK}%s\\n' '{name}'\n{question}" for name, question in asked.items())])


def answers(printed: str) -> dict[str, str]:
    """The output of such a script, split by part."""
    found = {}
    for piece in printed.split(MARK)[1:]:
        name, _, answer = piece.partition("\n")
        found[name] = answer
    return found


def judge(seen: Observations, nodes: Sequence[NodeStatus]) -> Status:
    """The status that follows from the answers."""
    parts = tuple(part.status(seen) for part in parts_of(seen.topology))
    off = [f"{node.name} is {node.power}" for node in nodes if node.power is not Power.RUNNING]
    problems = [*off, *(problem for part in parts for problem in part.problems)]
    return Status(
        tuple(nodes),
        directors.owners_of(seen.topology, seen.addresses),
        tables(seen),
        tuple(problems),
        parts,
        tuple(directors.stale_neighbours(seen)),
    )
