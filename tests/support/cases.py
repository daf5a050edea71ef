"""The cases of ``tests/cases/config``: files of a user's own laid over the default topology, and doctor's answers."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.doctor import Finding
from topology.load import load, shipped
from topology.model import Topology

FOLDER = Path(__file__).parents[1] / "cases" / "config"
ANSWERS: dict[str, dict[str, Any]] = tomllib.loads((FOLDER / "answers.toml").read_text())


def overlaid(names: Iterable[str], folder: Path) -> Topology:
    """The default topology with the files of these cases, copied below a folder."""
    text = shipped()["ultramonkey"].read_text()
    for name in names:
        shutil.copytree(FOLDER / name, folder / name)
        text += (FOLDER / name / "overlays.toml").read_text().replace('source = "', f'source = "{name}/')
    (folder / "cluster.toml").write_text(text)
    return load(str(folder / "cluster.toml"))


def check(name: str, by: str, found: Iterable[Finding]) -> None:
    """Fails unless the answer of the case is among what programs, or rules, have found."""
    answer, every = ANSWERS[name], list(found)
    seen = "\n".join(f"{each.what}: {each.seen}" for each in every)
    if "silent" in answer:
        assert answer["silent"] not in seen, seen
    if answer.get("by") == by:
        right = [each for each in every if each.what.endswith(f"/{answer['at']}") and answer["says"] in each.seen]
        assert len(right) == 1, seen
