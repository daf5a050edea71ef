"""Images are named by what they are made from."""

from __future__ import annotations

import shutil
from pathlib import Path

import docker.errors
import pytest

from harness.records import LabError
from topology.lab import image
from topology.lab.node import without_stack_traces


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(image.IMAGES, tmp_path / "images")
    monkeypatch.setattr(image, "IMAGES", tmp_path / "images")
    return tmp_path / "images"


def test_every_role_has_an_image_of_its_own(images: Path) -> None:
    names = image.names()
    assert set(names) == {"director", "web", "db", "resolver", "client", "switch"}
    assert len(set(names.values())) == len(names)
    assert names == image.names()


def test_a_change_in_one_role_renames_its_image_alone(images: Path) -> None:
    before = image.names()
    (images / "web" / "rsyncd.conf").write_text("timeout = 1\n")
    after = image.names()
    assert {role for role in before if before[role] != after[role]} == {"web"}


def test_a_change_in_what_all_nodes_share_renames_all(images: Path) -> None:
    before = image.names()
    (images / "node" / "runit" / "3").write_text("#!/bin/sh\n")
    after = image.names()
    assert all(before[role] != after[role] for role in before)


def test_compiled_python_changes_nothing(images: Path) -> None:
    before = image.names()
    (images / "node" / "machine" / "__pycache__").mkdir(exist_ok=True)
    (images / "node" / "machine" / "__pycache__" / "wire.pyc").write_bytes(b"x")
    assert image.names() == before


def test_a_console_keeps_its_sentences_and_loses_its_stack_traces() -> None:
    console = """\
Kernel panic - not syncing: Requested init /sbin/runit failed (error -13).
Stack:
 61077eb0 60983b0b 607b940e 60bfb2e0
Call Trace:
 [<6003209e>] ? _printk+0x0/0x45
The end.
"""
    assert without_stack_traces(console) == [
        "Kernel panic - not syncing: Requested init /sbin/runit failed (error -13).",
        "The end.",
    ]


class Engine:
    """An engine that imports a file system under a tag that it chooses."""

    def __init__(self, tag: str, report: str) -> None:
        self.tags, self._tag, self._report = set[str](), tag, report
        self.api = self.images = self

    def import_image_from_file(self, _: str, repository: str, tag: str) -> str:
        assert (repository, tag) == ("monkeywrench-base", "bookworm")
        self.tags.add(f"{repository}:{self._tag}")
        return self._report

    def get(self, name: str) -> Engine:
        if name not in self.tags | {"sha256:1f"}:
            raise docker.errors.ImageNotFound(name)
        return self

    def tag(self, repository: str, tag: str) -> None:
        self.tags.add(f"{repository}:{tag}")


@pytest.mark.parametrize("report", ['{"status":"sha256:1f"}\r\n', '{"progress":"1 MB"}\n{"status":"sha256:1f"}\n', ""])
@pytest.mark.parametrize("tag", ["bookworm", "latest"])
def test_an_imported_base_has_its_tag_on_every_engine(tag: str, report: str, tmp_path: Path) -> None:
    """Docker takes the tag of the import; Podman ignores it."""
    engine = Engine(tag, report)
    image.import_base(engine, tmp_path / "base.tar")
    assert image.BASE in engine.tags


def test_an_import_that_fails_is_a_lab_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="importing the base image failed: no space"):
        image.import_base(Engine("bookworm", '{"error":"no space"}'), tmp_path / "base.tar")
