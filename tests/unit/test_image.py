"""Images are named by what they are made from."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import docker.errors
import pytest

from harness.doctor import kernel_finding
from harness.records import LabError
from topology.lab import image
from topology.lab.node import without_stack_traces
from topology.model import Scheduler


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(image.IMAGES, tmp_path / "images")
    monkeypatch.setattr(image, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(image, "LOCK", tmp_path / "lock")
    # the images group fetches them; here no package index may decide
    monkeypatch.setattr(image, "fetch_wheels", lambda lock, target: (target / f"{lock.parent.name}.whl").touch())
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


def test_a_change_in_the_kernel_renames_all_and_tries_its_build_again(images: Path) -> None:
    before, debian = image.names(), image.debian_kernel()
    with (images / "kernel" / "config").open("a") as config:
        config.write("CONFIG_XFS_FS=y\n")
    after = image.names()
    assert all(before[role] != after[role] for role in before)
    assert image.debian_kernel() != debian


class Kernels:
    """An engine that has some images, builds what it can, and notes what it was asked for."""

    def __init__(self, *have: str, log: tuple[str, ...] = ()) -> None:
        self.have: dict[str, dict[str, str]] = {name: {} for name in (image.BASE, *have)}
        self.built: list[str] = []
        self.log = log
        self.api = self.images = self
        self.labels: dict[str, str] = {}

    def get(self, name: str) -> Kernels:
        if name not in self.have:
            raise docker.errors.ImageNotFound(name)
        self.labels = self.have[name]
        return self

    def build(self, *, tag: str, labels: dict[str, str], dockerfile: str, **_: object) -> Iterator[dict[str, str]]:
        self.built.append(tag.partition(":")[0])
        if tag == image.own_kernel() and self.log:
            yield from ({"stream": line + "\n"} for line in self.log)
            yield {"error": "the command returned a non-zero code: 1"}
        else:
            assert (dockerfile == "Dockerfile.debian") == (tag == image.debian_kernel())
            self.have[tag] = labels


NO_SOURCE = ("Reading package lists...", "no own kernel: no package of the Linux source is served")
ROLES = {f"monkeywrench-{role}" for role in image.ROLES}


def test_a_lab_in_real_time_builds_no_kernel(images: Path) -> None:
    engine = Kernels(log=NO_SOURCE)
    assert image.ensure(engine, lambda _: None) == image.names("real")
    assert engine.built[:2] == ["monkeywrench-kernel-debian", "monkeywrench-node"]
    assert set(engine.built[2:]) == ROLES
    engine.built.clear()
    image.ensure(engine, lambda _: None)
    assert not engine.built


def test_the_kernel_for_virtual_time_is_built_once(images: Path) -> None:
    engine = Kernels()
    assert image.ensure(engine, lambda _: None, "virtual") == image.names("virtual") != image.names("real")
    assert engine.built[:2] == ["monkeywrench-kernel", "monkeywrench-node"]
    engine.built.clear()
    image.ensure(engine, lambda _: None, "virtual")
    assert not engine.built


def test_without_its_kernel_there_is_no_virtual_time_and_the_reason_is_said(images: Path) -> None:
    engine = Kernels(log=NO_SOURCE)
    with pytest.raises(LabError, match="failed: no package of the Linux source is served") as caught:
        image.ensure(engine, lambda _: None, "virtual")
    assert "--clock real" in caught.value.next_step
    assert image.ensure(engine, lambda _: None) == image.names()


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            "building failed: 1\nno own kernel: less than 3000 MiB of disk are free",
            "less than 3000 MiB of disk are free",
        ),
        ("building the kernel image failed: no space left\nlog", "building the kernel image failed: no space left"),
        ("", "its build failed"),
    ],
)
def test_the_reason_is_what_the_build_says_last(error: str, why: str) -> None:
    assert image.why_not(error) == why


SERVED = """\
linux-source-6.1 - Linux kernel source for version 6.1 with Debian patches
linux-source - Linux kernel source (meta-package)
linux-source-6.12 - Linux kernel source for version 6.12 with Debian patches
linux-source-7.10 - Linux kernel source for version 7.10 with Debian patches
linux-source-7.2 - Linux kernel source for version 7.2 with Debian patches
"""


@pytest.mark.parametrize(("served", "newest"), [(SERVED, "linux-source-7.10\n"), ("", "")])
def test_the_newest_source_is_built(served: str, newest: str) -> None:
    script = image.IMAGES / "kernel" / "newest-source"
    done = subprocess.run(["sh", str(script)], input=served, capture_output=True, text=True, check=True)
    assert done.stdout == newest


def kernel_options() -> dict[str, str]:
    lines = (image.IMAGES / "kernel" / "config").read_text().splitlines()
    rows = [line.partition("=") for line in lines if not line.startswith("#")]
    assert len({name for name, _, _ in rows}) == len(rows), "an option is set twice"
    return {name: value for name, _, value in rows}


def test_the_configuration_has_each_option_once_and_each_is_on() -> None:
    options = kernel_options()
    assert all(name.startswith("CONFIG_") and value and value != "n" for name, value in options.items())


def test_the_kernel_has_every_scheduler_that_a_topology_may_ask_for() -> None:
    options = kernel_options()
    schedulers = get_args(Scheduler)
    assert schedulers
    assert [name for name in schedulers if options.get(f"CONFIG_IP_VS_{name.upper()}") != "y"] == []


def test_the_kernel_has_what_makes_its_time_virtual_and_nothing_that_forbids_it() -> None:
    options = kernel_options()
    assert {options[f"CONFIG_{name}"] for name in ("UML_TIME_TRAVEL_SUPPORT", "VIRTIO_UML", "VIRTIO_CONSOLE")} == {"y"}
    assert not {"CONFIG_SMP", "CONFIG_RAID6_PQ_BENCHMARK"} & options.keys()


def test_patches_say_why_and_under_which_licence() -> None:
    patches = sorted((image.IMAGES / "kernel" / "patches").glob("*.patch"))
    assert patches
    for patch in patches:
        reason = patch.read_text().partition("\n--- ")[0]
        assert "SPDX-License-Identifier: GPL-2.0-only" in reason
        assert len(reason.splitlines()) > 4


def test_the_doctor_says_which_kernel_labs_get() -> None:
    assert kernel_finding(True).seen == "in real time Debian's; in virtual time the one built from source"
    assert "that the first of these labs builds" in kernel_finding(False).seen


def test_compiled_python_changes_nothing(images: Path) -> None:
    before = image.names()
    (images / "node" / "machine" / "__pycache__").mkdir(exist_ok=True)
    (images / "node" / "machine" / "__pycache__" / "wire.pyc").write_bytes(b"x")
    assert image.names() == before


@pytest.mark.parametrize("clock", ["", "[    0.010000] "])
def test_a_console_keeps_its_sentences_and_loses_its_stack_traces(clock: str) -> None:
    lines = [
        "Kernel panic - not syncing: Requested init /sbin/runit failed (error -13).",
        "Stack:",
        " 61077eb0 60983b0b 607b940e 60bfb2e0",
        "Call Trace:",
        " [<6003209e>] ? _printk+0x0/0x45",
        "The end.",
    ]
    assert without_stack_traces("".join(f"{clock}{line}\n" for line in lines)) == [clock + lines[0], clock + lines[-1]]


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
