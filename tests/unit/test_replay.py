"""A stored run again: is it the same, and where did it part? On a lab in memory, which repeats itself, too."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness import compose, scenario
from harness.artifacts.stored_run import StoredError, read
from harness.cli import main
from harness.fake import Defect, FakeLab
from harness.history import History, Op, load
from harness.records import LabError, Power
from harness.replay import Rerun, frames_apart, moment_ns, ops_apart, rerun, until_ns
from topology.lab import engine, image, lifecycle
from topology.load import as_before, shipped
from topology.load import load as load_topology
from topology.model import TopologyError

POWER_CUT = Path(__file__).parents[1] / "chaos" / "director-power-cut.toml"
DIGESTS = {"director": "sha256:aaaa", "web": "sha256:bbbb"}


class Traced(FakeLab):
    """A lab in memory with virtual time: its trace is what its nodes did."""

    def __init__(self, defect: Defect | None = None) -> None:
        super().__init__("traced", defect)
        self.clock = replace(self.clock, kind="virtual")
        self.fresh = True

    def lines(self) -> list[str]:
        held = [f"{1_000_000_000_000 + 1000 * n} client.0 60 {n:x}\n" for n in range(5)]
        return [*held, f"{self.now_ns()} lb-1.0 60 {len(self.held):x}\n"]

    def trace(self) -> Mapping[str, Any]:
        return {"hash": hashlib.sha256("".join(self.lines()).encode()).hexdigest(), "frames": 6}

    def write_trace(self, path: Path) -> None:
        with gzip.open(path, "wt") as target:
            target.writelines(self.lines())

    def made_of(self) -> Mapping[str, Any]:
        topology = load_topology("ultramonkey", "virtual").model_dump(mode="json", exclude_defaults=True)
        return {"topology": topology, "images": DIGESTS, "fresh": self.fresh}

    def stop_captures(self) -> None:
        pass


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the power cut."""
    return recorded(tmp_path_factory.mktemp("original"), Traced())


@pytest.fixture
def stored(original: Path, tmp_path: Path) -> Path:
    """A run of the power cut, to be changed."""
    copied = shutil.copytree(original.parent, tmp_path / "runs", symlinks=True)
    return copied / original.name


def recorded(tmp_path: Path, on: FakeLab) -> Path:
    return compose.execute(scenario.load(POWER_CUT), POWER_CUT, on, tmp_path / "runs", lambda _: None)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeLab], list[Rerun]]:
    """The lab of the next replay; -> what it was asked to be."""

    def use(lab: FakeLab) -> list[Rerun]:
        asked: list[Rerun] = []

        @contextmanager
        def again(run: Rerun, *_: object, **__: object) -> Iterator[FakeLab]:
            asked.append(run)
            yield lab

        monkeypatch.setattr(compose, "again", again)
        return asked

    return use


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def newest(directory: Path) -> Path:
    (found,) = [each for each in directory.parent.iterdir() if each != directory and not each.is_symlink()]
    return found


# --- a whole run


def test_the_same_run_again_is_said_to_be_so(stored: Path, on: Callable[[FakeLab], list[Rerun]]) -> None:
    asked = on(Traced())
    done = call("replay", stored, "--runs", stored.parent)
    assert done.exit_code == 0, done.output
    assert "the same run again: hash" in done.stdout
    assert [(each.seed, each.images, each.fresh) for each in asked] == [(1, DIGESTS, True)]
    assert as_before(asked[0].topology) == load_topology("ultramonkey", "virtual")
    meta = json.loads((newest(stored) / "meta.json").read_text())
    assert meta["replay_of"] == stored.name
    assert (newest(stored) / "scenario.toml").read_bytes() == POWER_CUT.read_bytes()
    assert (stored.parent / "latest").resolve() == stored


def test_another_run_is_told_with_its_first_op_and_frame(stored: Path, on: Callable[[FakeLab], list[Rerun]]) -> None:
    on(Traced(Defect.TAKES_OVER_LATE))
    done = call("replay", stored, "--runs", stored.parent)
    assert done.exit_code == 1
    before, now = load(stored / "history.jsonl"), load(newest(stored) / "history.jsonl")
    place = next(n for n, (was, is_) in enumerate(zip(before, now, strict=False)) if was.line() != is_.line())
    assert "another run: hash" in done.stdout
    assert f"the first op that differs is {place} at {before[place].time / 1e9:.9f} s: " in done.stdout
    assert "the first frame that differs is 5 at" in done.stdout
    assert "had passed before" not in done.stdout


def test_a_lab_that_had_been_up_before_is_named_as_a_reason(
    tmp_path: Path, on: Callable[[FakeLab], list[Rerun]]
) -> None:
    used = Traced()
    used.fresh = False
    used.clock.sleep(5)
    directory = recorded(tmp_path, used)
    on(Traced())
    done = call("replay", directory, "--runs", directory.parent)
    assert done.exit_code == 1
    assert "the stored run used a lab in which time had passed before" in done.stdout


def test_a_killed_run_is_the_same_as_far_as_it_goes_and_its_end_is_unknown(
    stored: Path, on: Callable[[FakeLab], list[Rerun]]
) -> None:
    path = stored / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:100]))
    (stored / "trace.gz").unlink()
    on(Traced())
    done = call("replay", stored, "--runs", stored.parent)
    assert done.exit_code == 3
    assert "was killed, and has no hash; the 100 ops that both have are equal" in done.stdout
    assert "frames cannot be compared: one of the runs has no trace.gz" in done.stdout


# --- until a moment


class LeftError(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise LeftError

    monkeypatch.setattr("harness.cli.replay.leave", leave)
    return codes


def replayed_until(stored: Path, moment: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a replay prints that stops at a moment."""
    with pytest.raises(LeftError):
        main.main(["replay", str(stored), "--runs", str(stored.parent), "--until", moment], standalone_mode=False)
    return capsys.readouterr().out


def test_until_a_moment_the_lab_is_left_as_it_was(
    stored: Path,
    on: Callable[[FakeLab], list[Rerun]],
    left: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lab = Traced()
    on(lab)
    seen: list[tuple[int, Power, int]] = []
    monkeypatch.setattr(
        lab, "stop_captures", lambda: seen.append((lab.now_ns(), lab.node("lb-1").power(), len(lab.held)))
    )
    cut = next(op for op in load(stored / "history.jsonl").of("fault") if op["phase"] == "proof")
    moment = f"{cut.time / 1e9 + 0.5:.9f}s"
    stdout = replayed_until(stored, moment, capsys)
    assert left == [0]
    assert "the same run so far" in stdout
    assert f"lab traced stands still, {moment[:-1]} s after the beginning of the run" in stdout
    assert "monkeywrench exec --lab traced lb-1 -- ipvsadm -Ln" in stdout
    assert f"monkeywrench replay {stored} --until LATER --lab traced" in stdout
    origin_ns = load(stored / "history.jsonl").start["origin_ns"]
    assert seen == [(origin_ns + cut.time + 500_000_000, Power.OFF, 1)]
    assert (newest(stored) / "trace.gz").is_file()


def test_until_a_moment_in_another_run_names_the_difference(
    stored: Path, on: Callable[[FakeLab], list[Rerun]], left: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    on(Traced(Defect.TAKES_OVER_LATE))
    stdout = replayed_until(stored, "20s", capsys)
    assert left == [1]
    assert "another run" in stdout
    assert "the first op that differs is" in stdout


@pytest.mark.parametrize(
    ("until", "says"),
    [
        ("later", "'later' is no time"),
        ("-1", "'-1' is no time"),
        ("1e3", "'1e3' is no time"),
        ("9999s", "the run ended at"),
    ],
)
def test_a_moment_that_the_run_does_not_have_is_refused(stored: Path, until: str, says: str) -> None:
    done = call("replay", stored, f"--until={until}")
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.split())
    assert "Next:" in done.stderr


def test_moments_are_exact() -> None:
    assert moment_ns("50.26s") == moment_ns("50.26") == moment_ns(" 50.260 s") == 50_260_000_000
    assert moment_ns("60.123456789") == 60_123_456_789
    assert moment_ns("60.1234567891") is moment_ns("") is moment_ns("1,5") is None


def test_a_moment_of_the_run_is_one_of_the_lab(stored: Path) -> None:
    run = read(stored / "history.jsonl")
    assert until_ns(run, "1.5s") == run.history.start["origin_ns"] + 1_500_000_000


# --- what cannot be replayed


def test_a_run_in_real_time_is_refused(tmp_path: Path) -> None:
    done = call("replay", recorded(tmp_path, FakeLab()))
    assert done.exit_code == 2
    assert "had real time: no two such runs are alike" in " ".join(done.stderr.split())
    assert "monkeywrench run director-power-cut --clock virtual" in done.stderr


@pytest.mark.parametrize("content", ["", "{", "[]", '{"topology": {}, "images": {}, "fresh": true}', '{"images": 5}'])
def test_a_run_that_does_not_say_what_its_lab_was_made_of_is_refused(stored: Path, content: str) -> None:
    (stored / "lab.json").write_text(content)
    done = call("replay", stored)
    assert done.exit_code == 2
    assert "lab.json does not say what the lab of this run was made of" in " ".join(done.stderr.split())


def test_images_that_are_gone_are_named_with_the_next_step(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "connect", object)
    monkeypatch.setattr(image, "exists", lambda _, name: name == DIGESTS["web"])
    done = call("replay", stored)
    assert done.exit_code == 4
    told = " ".join(done.stderr.split())
    assert "images of that run are not in this Docker Engine any more: director (aaaa)" in told
    assert "--todays-images" in told


@pytest.mark.parametrize(("options", "images"), [((), DIGESTS), (("--todays-images",), None)])
def test_the_new_lab_has_the_runs_images_and_seed(
    stored: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], images: Mapping[str, str] | None
) -> None:
    booted: list[dict[str, Any]] = []
    removed: list[str] = []

    def boot(_: object, topology: object, name: str, __: object, **given: Any) -> FakeLab:
        booted.append({"topology": topology, "name": name.partition("-")[0], **given})
        raise LabError("no lab today")

    monkeypatch.setattr(engine, "connect", object)
    monkeypatch.setattr(image, "exists", lambda *_: True)
    monkeypatch.setattr(lifecycle, "boot", boot)
    monkeypatch.setattr(lifecycle, "remove", lambda _, name: removed.append(name))
    assert call("replay", stored, *options).exit_code == 4
    virtual = load_topology("ultramonkey", "virtual")
    assert booted == [{"topology": virtual, "name": "replay", "keep": False, "seed": 1, "images": images}]
    assert call("replay", stored, "--until", "3s", *options).exit_code == 4
    assert booted[1]["keep"] is True


def test_a_lab_of_a_replay_is_removed_and_one_that_failed_too(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    lab = Traced()
    monkeypatch.setattr(lab, "close", lambda: None, raising=False)
    monkeypatch.setattr(engine, "connect", object)
    monkeypatch.setattr(image, "exists", lambda *_: True)
    monkeypatch.setattr(lifecycle, "boot", lambda *_, **__: lab)
    monkeypatch.setattr(lifecycle, "remove", lambda _, name: removed.append(name))
    run = rerun(read(stored / "history.jsonl"), (stored / "lab.json").read_text())
    with compose.again(run, "one", lambda _: None):
        assert removed == []
    assert removed == ["one"]
    with compose.again(run, "kept", lambda _: None, keep=True):
        pass
    assert removed == ["one"]
    with pytest.raises(LabError), compose.again(run, "failed", lambda _: None, keep=True):
        raise LabError("it failed")
    assert removed == ["one", "failed"]


def test_files_of_the_users_that_changed_since_are_named(tmp_path: Path) -> None:
    own = tmp_path / "ha.cf"
    own.write_text("deadtime 3\n")
    overlay = '[[overlays]]\nnodes = "director"\npath = "/etc/ha.d/ha.cf"\nsource = "ha.cf"\n'
    (tmp_path / "my.toml").write_text(shipped()["ultramonkey"].read_text() + overlay)
    topology = load_topology(str(tmp_path / "my.toml"), "virtual")
    dumped = topology.model_dump(mode="json", exclude_defaults=True)
    assert as_before(json.loads(json.dumps(dumped))) == topology
    own.write_text("deadtime 4\n")
    with pytest.raises(TopologyError, match=r"ha\.cf, which that run had on its nodes, has changed since"):
        as_before(dumped)
    own.unlink()
    with pytest.raises(TopologyError, match="does not exist any more"):
        as_before(dumped)
    with pytest.raises(TopologyError, match="cannot be read by this version: unknown key 'sitte'"):
        as_before({**dumped, "sitte": "x"})


# --- comparing, pure


def ops(*values: int) -> History:
    return History([Op(n, 1000 * n, "p", "info", "f", value) for n, value in enumerate(values)])


def test_the_first_op_that_differs_is_found() -> None:
    assert ops_apart(ops(1, 2, 3), ops(1, 2, 3)) is None
    parted = ops_apart(ops(1, 2, 3), ops(1, 5, 3))
    assert parted is not None
    assert (parted.place, parted.time_ns) == (1, 1000)
    assert '"value":2' in parted.before
    assert '"value":5' in parted.now
    longer = ops_apart(ops(1), ops(1, 2))
    assert longer is not None
    assert str(longer).startswith("1 at 0.000001000 s: nothing more; now {")
    assert ops_apart(ops(1), ops(1, 2), whole=False) is None
    assert ops_apart(ops(1, 2), ops(1, 3), whole=False) is not None


def test_the_order_of_a_trace_between_nodes_means_nothing_and_that_of_one_node_does() -> None:
    one = ["5 lb-1.0 60 aa", "5 lb-2.0 60 bb", "7 lb-1.0 60 cc", "7 lb-1.0 60 dd"]
    two = [one[1], one[0], *one[2:]]
    assert frames_apart(one, two, 0, 99) is None
    parted = frames_apart(one, [*one[:2], one[3], one[2]], 2, 99)
    assert parted is not None
    assert str(parted) == ("2 at 0.000000005 s: lb-1.0 sent 60 bytes (hash cc); now lb-1.0 sent 60 bytes (hash dd)")
    assert frames_apart(one, one[:2], 0, 7) is None
    assert frames_apart(one, one[:2], 0, 8) is not None
    assert frames_apart(["nonsense", *one], one, 0, 99) is None


def test_a_run_without_a_history_of_virtual_time_is_no_rerun(stored: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(stored, tmp_path / "copy")
    path = copy / "history.jsonl"
    path.write_text(path.read_text().replace('"clock":"virtual"', '"clock":"real"'))
    with pytest.raises(StoredError, match="had real time"):
        rerun(read(path), (copy / "lab.json").read_text())


def test_a_record_that_differs_while_the_frames_are_equal_is_the_harness_s(
    stored: Path, on: Callable[[FakeLab], list[Rerun]]
) -> None:
    path = stored / "history.jsonl"
    path.write_text(path.read_text().replace('"phase":"open"', '"phase":"opened"', 1))
    on(Traced())
    done = call("replay", stored, "--runs", stored.parent)
    assert done.exit_code == 1
    assert "the nodes sent the same again (hash" in done.stdout
    assert "the first op that differs is" in done.stdout
    assert "the first frame" not in done.stdout
