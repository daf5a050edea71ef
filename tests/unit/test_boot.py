"""A lab that does not become healthy: what is told, and what is left of it. Real labs: ``tests/lab/test_life.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.wait import Timeout
from topology.lab import lifecycle
from topology.model import Topology, load, shipped

TROUBLE = "waited 180 s for the cluster to be healthy, in vain; last seen: 203.0.113.101 is held by nobody"


class Sick:
    """A lab of which one address is held by nobody."""

    def wait_healthy(self) -> None:
        """Never."""
        raise Timeout(TROUBLE)

    def last_words(self) -> str:
        """One director's."""
        return "lb-1: heartbeat: [809]: ERROR: msg2string: Message with zero fields"


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the labs that were removed; all that are made are sick."""
    names: list[str] = []
    monkeypatch.setattr(lifecycle, "power_on", lambda *_: Sick())
    monkeypatch.setattr(lifecycle, "remove", lambda _client, name: names.append(name))
    return names


def boot(topology: Topology, **given: Any) -> None:
    """Boot a lab ``mine``, and say nothing."""
    lifecycle.boot(None, topology, "mine", lambda _: None, **given)


def test_the_error_has_what_is_wrong_and_what_heartbeat_said(removed: list[str]) -> None:
    with pytest.raises(Timeout, match=r"held by nobody\nWhat heartbeat said last:\nlb-1: .*zero fields$"):
        boot(load("ultramonkey"), keep=True)
    assert removed == ["mine"]


def test_one_with_files_of_the_users_stays_up_where_it_is_to_be_kept(removed: list[str], tmp_path: Path) -> None:
    (tmp_path / "ha.cf").write_text("deadtime 3\n")
    overlay = '[[overlays]]\nnodes = "director"\npath = "/etc/ha.d/ha.cf"\nsource = "ha.cf"\n'
    (tmp_path / "mine.toml").write_text(shipped()["ultramonkey"].read_text() + overlay)
    topology = load(str(tmp_path / "mine.toml"))
    with pytest.raises(lifecycle.UnhealthyError, match="not all is well: waited 180 s"):
        boot(topology, keep=True)
    assert not removed
    with pytest.raises(Timeout):
        boot(topology)
    assert removed == ["mine"]
