"""The script that replicates the site: each change has a time that rsync sees, also where a time is a whole second."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.images.web.lib import replicate
from topology.images.web.lib.replicate import SECOND_NS, Plan, mark, settle, take_snapshot, whole_second


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


class Writes:
    """Events at a fixed interval on a clock of its own; a snapshot takes 50 ms."""

    def __init__(self, every_s: float, monkeypatch: pytest.MonkeyPatch, last_s: float = 1e9) -> None:
        self.now_s, self.every_s, self.last_s, self.taken = 0.0, every_s, last_s, 0
        self.read = 0
        monkeypatch.setattr(replicate, "take_snapshot", self.take)

    def take(self, _: Plan) -> str:
        self.now_s += 0.05
        self.taken += 1
        return ""

    def now(self) -> float:
        return self.now_s

    def happened(self, within_s: float) -> bool:
        """As the real one: it returns at the first event, and discards all that there are."""
        event_s = (self.read + 1) * self.every_s
        if event_s > min(self.now_s + within_s, self.last_s):
            self.now_s += within_s
            return False
        self.now_s = max(self.now_s, event_s)
        self.read = max(self.read + 1, int(self.now_s / self.every_s))
        return True


def test_a_pause_of_the_debounce_is_waited_for(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = Writes(0.4, monkeypatch, last_s=2.0)
    assert not settle(plan, writes, writes.now)  # type: ignore[arg-type]
    assert writes.taken == 1
    assert writes.now_s == pytest.approx(2.0 + 0.5 + 0.05)


def test_what_changes_twice_a_second_is_replicated_all_the_same(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = Writes(0.45, monkeypatch)
    assert not settle(plan, writes, writes.now)  # type: ignore[arg-type]
    assert writes.taken == 1
    assert 5.0 <= writes.now_s <= 6.0


def test_writing_without_a_pause_is_a_problem_and_not_silence(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = Writes(0.04, monkeypatch)
    assert settle(plan, writes, writes.now) == "not replicated: written without a pause for 10 s"  # type: ignore[arg-type]
    assert writes.taken == 0
