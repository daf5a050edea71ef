"""The script that replicates the site: each change has a time that rsync sees, also where a time is a whole second."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.images.web.lib import replicate
from topology.images.web.lib.replicate import SECOND_NS, Plan, mark, take_snapshot, whole_second


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "site" / "articles").mkdir(parents=True)
    return Plan(str(tmp_path / "site"), {}, 0.5, 60, str(tmp_path / "state.json"))


def write(path: Path, text: str, at_ns: int) -> None:
    path.write_text(text)
    os.utime(path, ns=(at_ns, at_ns))


@given(st.integers(0, 10**19), st.none() | st.integers(0, 10**19))
def test_a_second_is_whole_and_later_than_the_one_before(mtime_ns: int, before_ns: int | None) -> None:
    found = whole_second(mtime_ns, before_ns)
    assert found % SECOND_NS == 0
    assert found >= mtime_ns
    assert before_ns is None or found > before_ns


def test_two_changes_in_one_second_have_two_times(plan: Plan) -> None:
    page = Path(plan.folder) / "articles" / "1.html"
    times = []
    for number in range(5):
        write(page, f"text {number}", 1_000 * SECOND_NS + 100_000_000 * (number + 1))
        mark(plan)
        shutil.copytree(plan.folder, plan.snapshot, dirs_exist_ok=True)
        times.append((plan.snapshot / "articles" / "1.html").lstat().st_mtime_ns)
    assert len(set(times)) == 5
    assert times == sorted(times)
    assert all(time % SECOND_NS == 0 for time in times)
    assert (plan.snapshot / "articles" / "1.html").read_text() == "text 4"


def test_what_has_a_whole_second_is_left_alone_and_so_is_a_link(plan: Plan) -> None:
    folder = Path(plan.folder)
    write(folder / "page.html", "page", 7 * SECOND_NS)
    write(folder / "new.html", "new", 7 * SECOND_NS + 1)
    (folder / "link.html").symlink_to("new.html")
    linked = (folder / "link.html").lstat().st_mtime_ns
    mark(plan)
    assert (folder / "page.html").lstat().st_mtime_ns == 7 * SECOND_NS
    assert (folder / "new.html").lstat().st_mtime_ns == 8 * SECOND_NS
    assert (folder / "link.html").lstat().st_mtime_ns == linked


def test_what_goes_away_meanwhile_is_no_mistake(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(plan.folder) / "page.html"
    write(page, "page", 1)

    def and_it_goes(*_: object) -> int:
        page.unlink()
        return SECOND_NS

    monkeypatch.setattr(replicate, "whole_second", and_it_goes)
    mark(plan)
    assert not page.exists()


def test_an_empty_folder_is_no_site(plan: Plan) -> None:
    (Path(plan.folder) / "articles").rmdir()
    assert "is empty" in take_snapshot(plan)
