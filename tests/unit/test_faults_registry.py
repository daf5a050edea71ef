"""Where each fault is, and that what faults look for on a node is what the images and the topology bring."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faults import FAULTS, programs, targets
from faults.fault import SimpleFault
from topology.files import files_of
from topology.load import load

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_in_the_file_or_the_folder_of_its_family(name: str) -> None:
    make = FAULTS[name]
    assert isinstance(make, type)
    assert issubclass(make, SimpleFault)
    family = f"faults.{name.partition('.')[0].replace('-', '_')}"
    assert f"{make.__module__}.".startswith(f"{family}.")


@pytest.mark.parametrize("name", FAULTS)
def test_a_summary_is_one_short_sentence(name: str) -> None:
    first_line = (FAULTS[name].__doc__ or "").partition("\n")[0]
    summary = re.match(r"[A-Z].*?\.(?=\s|$)", first_line)
    assert summary, first_line
    assert len(summary[0]) <= 110, summary[0]


def test_the_images_bring_the_programs_that_faults_run() -> None:
    shipped = {path.name for path in (ROOT / "topology/images").rglob("*") if path.is_file()}
    sources = [path.read_text() for path in (ROOT / "faults").rglob("*.py")]
    wanted = {name for text in sources for name in re.findall(r"\{(?:PROGRAMS|LIBRARY)\}/(?:\w+/)?([\w.-]+)", text)}
    assert len(wanted) > 10
    assert wanted - {"faults"} <= shipped


def test_a_topology_writes_the_files_that_faults_look_for() -> None:
    topology = load("ultramonkey")
    written = {file.path for machine in topology.machines for file in files_of(topology, machine, "lab", "key")}
    wanted = {targets.NFS_SERVER, targets.NFS_CLIENT, targets.REPLICATION, f"{programs.SETTINGS}/zone.toml"}
    wanted |= {path.format(kind=kind) for path in (targets.BACKUP, targets.KEEPER) for kind in ("database", "uploads")}
    assert wanted <= written


def test_no_fault_spells_out_a_path_that_is_in_programs() -> None:
    for path in (ROOT / "faults").rglob("*.py"):
        if path.name != "programs.py":
            literal = re.findall(r"/(?:usr/lib|run|etc)/monkeywrench/\S*|/run/service/\S*", path.read_text())
            assert not literal, path
