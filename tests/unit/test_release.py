"""The release report: runs that take turns, folders of runs, and what is written of them."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from harness import compose
from harness.artifacts import run_directory
from harness.compare import release
from harness.compare.release import ReleaseError, in_turn, turns
from harness.fake import FakeLab
from harness.records import LabError
from harness.verdict import conclude, invalid, judgement
from harness.wait import Clock
from tests.support.sites import Site, call, folder
from topology.load import load
from topology.model import Topology


def test_turns_change_places_so_that_neither_side_is_always_first() -> None:
    assert turns(4, ["candidate"]) == ["candidate"] * 4
    both = turns(6, ["baseline", "candidate"])
    assert both.count("baseline") == both.count("candidate") == 6
    firsts = both[::2]
    assert firsts.count("baseline") == firsts.count("candidate") == 3


def test_the_time_left_is_estimated_from_the_runs_so_far() -> None:
    reported: list[str] = []
    now = [0.0]

    def one(side: str) -> Path:
        now[0] += 60
        return Path(side)

    made = list(in_turn(["candidate"] * 3, one, reported.append, Clock(lambda: now[0], lambda _: None)))
    assert [side for side, _ in made] == ["candidate"] * 3
    assert reported == [
        "run 1 of 3, candidate",
        "run 2 of 3, candidate, about 2 min left",
        "run 3 of 3, candidate, about 60 s left",
    ]


def test_a_candidate_with_20_ms_more_on_one_endpoint_is_found_and_named(tmp_path: Path) -> None:
    before = folder(tmp_path / "before", 6, Site(), 1)
    now = folder(tmp_path / "now", 6, Site(slower_ms={"transfer": 20}), 2)
    result = call("compare", before, now)
    assert result.exit_code == 1
    assert "regression" in result.output
    written = json.loads((now / "comparison.json").read_text())
    assert written["decision"] == "regression"
    assert "Regression of transfer (" in written["summary"]
    page = (now / "comparison.html").read_text()
    assert "The candidate is worse." in page
    assert "Regression of transfer" in page
    assert page.count('class="dot candidate"') >= 4 * 6
    assert "<a " not in page  # these runs have no reports of their own to lead to


def test_the_same_twice_is_no_difference_and_earlier_candidates_are_a_baseline(tmp_path: Path) -> None:
    before = folder(tmp_path / "before", 12, Site(), 1)
    now = folder(tmp_path / "now", 12, Site(), 2)
    result = call("compare", before, now, "--json", "--to", tmp_path / "out")
    assert (result.exit_code, json.loads(result.stdout)["decision"]) == (0, "no difference")
    assert (tmp_path / "out" / "comparison.html").is_file()
    assert not (now / "comparison.html").exists()


def test_too_few_runs_exit_with_3(tmp_path: Path) -> None:
    before, now = folder(tmp_path / "a", 2, Site(), 1), folder(tmp_path / "b", 2, Site(), 2)
    result = call("compare", before, now)
    assert result.exit_code == 3
    assert "not enough runs to decide" in result.output


def test_a_folder_without_runs_and_runs_that_cannot_be_compared_are_sentences(tmp_path: Path) -> None:
    before = folder(tmp_path / "a", 2, Site(), 1)
    (tmp_path / "empty").mkdir()
    nothing = call("compare", before, tmp_path / "empty")
    assert (nothing.exit_code, "no runs in" in nothing.stderr) == (2, True)
    twice = call("compare", before, before)
    assert twice.exit_code == 2
    assert "occurs more than once" in " ".join(twice.stderr.split())


def test_a_baseline_of_another_profile_is_refused_before_anything_is_booted(tmp_path: Path) -> None:
    before = folder(tmp_path / "a", 2, Site(), 1)
    result = call("load", "loadtests/profiles/steady.toml", "--baseline", before, "--to", tmp_path / "out")
    assert result.exit_code == 2
    assert "not of 'steady'" in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
    for history in before.rglob(run_directory.HISTORY):
        history.write_text(history.read_text().replace('"scenario":"director-power-cut"', '"scenario":"steady"'))
    other = call("load", "loadtests/profiles/steady.toml", "--baseline", before, "--to", tmp_path / "out")
    assert other.exit_code == 2
    assert "holds runs of another topology: " in " ".join(other.stderr.split())
    assert not (tmp_path / "out").exists()
    both = call("load", "loadtests/profiles/steady.toml", "--baseline", before, "--against", "ultramonkey")
    assert (both.exit_code, "exclude each other" in both.stderr) == (2, True)
    none = call("load", "no-such.toml")
    assert (none.exit_code, "unknown scenario 'no-such.toml'" in none.stderr) == (2, True)


def test_runs_that_finished_before_an_interruption_are_kept_and_can_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third of eight runs finds its lab gone."""
    seeds = [1, 2]

    def carried_out(_: object, __: Path, ___: object, place: Path, *____: object, **_____: object) -> Path:
        if not seeds:
            raise LabError("the lab is gone", "Boot it again.")
        folder(place.parent, 1, Site(), seeds.pop(), place.name)
        return next(place.glob("run-*"))

    monkeypatch.setattr(release, "folder", lambda *_: tmp_path / "out")
    monkeypatch.setattr(compose, "execute", carried_out)
    monkeypatch.setattr(compose, "labs_by_side", lambda *_: nullcontext(nullcontext))
    monkeypatch.setattr("harness.cli.load.judge_directory", lambda *_: [])
    broken = call("load", "steady", "--runs", "4", "--against", "ultramonkey", "--to", tmp_path)
    assert broken.exit_code == 4
    assert "the lab is gone" in broken.stderr
    (command,) = [line.partition(": monkeywrench ")[2] for line in broken.stderr.splitlines() if "interrupted" in line]
    assert call(*command.split()).exit_code == 3


def test_a_run_that_was_killed_is_left_out_and_named(tmp_path: Path) -> None:
    before, now = folder(tmp_path / "a", 6, Site(), 1), folder(tmp_path / "b", 6, Site(), 2)
    victim = now / "candidate" / "run-2-3" / run_directory.HISTORY
    victim.write_text("".join(victim.read_text().splitlines(keepends=True)[:-1]))
    call("compare", before, now)
    assert "run-2-3 cannot be used: the run was killed." in (now / "comparison.html").read_text()


def test_a_run_in_which_something_went_wrong_is_named(tmp_path: Path) -> None:
    old, new = folder(tmp_path / "a", 3, Site(), 1), folder(tmp_path / "b", 3, Site(), 2)
    runs = sorted((new / release.CANDIDATE).iterdir())
    dead = conclude("errors", [invalid("227 requests failed while nothing was injected.")], "")
    for run, verdicts in zip(
        runs, ([conclude("errors", [], "fine")], [conclude("audit", [], "left"), dead]), strict=False
    ):
        (run / run_directory.VERDICT).write_text(judgement("steady", verdicts).model_dump_json())
    (runs[2] / run_directory.VERDICT).write_text("{")  # of a run that was not judged there is nothing to say
    result = call("compare", old, new, "--to", tmp_path)
    note = "Run run-2-1 of the candidate is invalid. errors: 227 requests failed while nothing was injected."
    notes = json.loads((tmp_path / "comparison.json").read_text())["notes"]
    assert [each for each in notes if each.startswith("Run ")] == [note]
    assert "run-2-1 of the candidate is" in result.output
    assert note in (tmp_path / "comparison.html").read_text()


def test_a_page_leads_to_the_reports_of_its_runs(tmp_path: Path) -> None:
    before, now = folder(tmp_path / "a", 5, Site(), 1), folder(tmp_path / "b", 5, Site(), 2)
    (now / "candidate" / "run-2-1" / run_directory.REPORT).write_text("<html></html>")
    call("compare", before, now)
    assert 'href="candidate/run-2-1/report.html"' in (now / "comparison.html").read_text()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReleaseError, match="cannot create"):
        release.folder(tmp_path / "file", "steady")


def test_tolerances_are_read_from_words(tmp_path: Path) -> None:
    judged = release.settings(["p50_ms=5", "p90_ms=20%", "p99_ms=no"]).judged
    assert (judged["p50_ms"].least, judged["p50_ms"].share) == (5, 0)
    assert judged["p90_ms"].share == 0.2
    assert "p99_ms" not in judged
    assert "error_share" in judged
    before, now = folder(tmp_path / "a", 8, Site(), 1), folder(tmp_path / "b", 8, Site(slower_ms={"transfer": 15}), 2)
    assert call("compare", before, now).exit_code == 1
    assert call("compare", before, now, "--tolerance", "p50_ms=40", "--tolerance", "p90_ms=no").exit_code == 0


@pytest.mark.parametrize("word", ["p50_ms", "p50_ms=", "p50=3", "p51_ms=no", "p50_ms=-3", "p50_ms=nan", "p50_ms=a%"])
def test_an_invalid_tolerance_is_refused(word: str) -> None:
    with pytest.raises(ReleaseError, match="invalid tolerance") as refused:
        release.settings([word])
    assert "p50_ms" in refused.value.next_step


def test_too_few_runs_are_reported_after_the_first_ones(tmp_path: Path) -> None:
    sides = {
        side: release.read(folder(tmp_path / side, 1, Site(), seed))
        for seed, side in enumerate((release.BASELINE, release.CANDIDATE))
    }
    first = release.compared(sides)
    assert "3 runs per side are too few to decide: 8 comparisons need at least 6 runs per side" in release.too_few(
        first, (3, 3)
    )
    assert "--runs 6" in release.too_few(first, (3, 3))
    assert release.too_few(first, (6, 6)) == ""
    assert release.too_few(first, (20, 4)) == ""


def test_two_sites_are_deployed_in_turn_on_one_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[Path | None] = []
    lab: Any = FakeLab()
    reported = list[str]()
    monkeypatch.setattr(compose, "lab_for", lambda *_: nullcontext(lab))
    monkeypatch.setattr("topology.lab.deploy.sites", lambda _: nullcontext(put.append))
    folders = {release.BASELINE: Path("old"), release.CANDIDATE: None}
    with compose.sites_by_side(load("ultramonkey"), folders, "default", reported.append) as lab_of:
        for side in turns(2, list(folders)):
            with lab_of(side) as given:
                assert given is lab
    assert put == [Path("old"), None, None, Path("old")]
    assert reported[:2] == ["deploying the baseline's site: old", "deploying the candidate's site: the one of the lab"]


def test_without_a_site_the_lab_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    lab: Any = FakeLab()
    monkeypatch.setattr(compose, "lab_for", lambda *_: nullcontext(lab))
    monkeypatch.delattr("topology.lab.deploy.sites")
    folders = {release.BASELINE: None, release.CANDIDATE: None}
    with (
        compose.sites_by_side(load("ultramonkey"), folders, "default", print) as lab_of,
        lab_of(release.CANDIDATE) as given,
    ):
        assert given is lab


def test_two_topologies_get_a_new_lab_for_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    booted: list[object] = []

    def boot(topology: Topology, *_: object) -> AbstractContextManager[FakeLab]:
        booted.append(topology)
        return nullcontext(FakeLab())

    monkeypatch.setattr("topology.lab.lifecycle.booted", boot)
    topologies = {release.BASELINE: load("ultramonkey"), release.CANDIDATE: load("ultramonkey")}
    with compose.labs_by_side(topologies, print) as lab_of:
        for side in (release.BASELINE, release.CANDIDATE):
            with lab_of(side):
                pass
    assert booted == list(topologies.values())
