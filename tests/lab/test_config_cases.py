"""The nodes' own programs answer the cases of configuration files as each says. No lab is booted for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import doctor
from tests.support.cases import ANSWERS, check, overlaid
from topology.daemons import Question, inside
from topology.lab import daemons
from topology.load import load, shipped

ANSWERED: dict[object, Sequence[inside.Complaint]] = {}
"""What the programs of a role said of these files."""


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the same question once: a case has files for one role, and the lab's own for all others."""
    ask = daemons.answer

    def answer(client: Any, name: str, question: Question) -> Sequence[inside.Complaint]:
        files = tuple(sorted((each.path, each.mode, question.data[each.path]) for each in question.files))
        key = (name, question.nodes[0], question.text, files)
        if key not in ANSWERED:
            ANSWERED[key] = list(ask(client, name, question))
        return ANSWERED[key]

    monkeypatch.setattr(daemons, "answer", answer)


ASKED = [name for name, answer in ANSWERS.items() if answer.get("by", "program") == "program"]


@pytest.mark.parametrize("name", ASKED)
def test_the_programs_answer_a_case(name: str, tmp_path: Path) -> None:
    check(name, "program", doctor.programs(overlaid([name], tmp_path)))


def test_the_programs_accept_the_labs_own_files(tmp_path: Path) -> None:
    (summary,) = doctor.programs(overlaid([], tmp_path))
    assert (summary.ok, summary.seen) == (True, "accept all files")


def test_each_line_that_heartbeat_refuses_is_named(tmp_path: Path) -> None:
    _, *found = doctor.programs(overlaid(["42-ha-numbers"], tmp_path))
    assert [each.what.rpartition(":")[2] for each in found] == [str(line) for line in range(18, 25)]


WRONG = {
    ("director", "/etc/ha.d/ha.cf"): (
        "node lb-1 lb-2\nfoo bar\nucast eth2 198.18.2.12\n",
        2,
        "Illegal directive [foo]",
    ),
    ("director", "/etc/ha.d/authkeys"): ("auth 1\n2 sha1 topsecret\n", 1, "Auth Key [1] not found"),
    ("director", "/etc/ha.d/haresources"): ("lb-1 nginx\n", 1, "no script nginx"),
    ("director", "/etc/ha.d/ldirectord.cf"): ("fork=maybe\n", 1, "fork must be"),
    ("director", "/etc/ganglia/gmetad.conf"): ('data_source "x" localhost\nfoo bar\n', 2, "Unknown Config-Option"),
    ("director", "/etc/monkeywrench/boot.d/ours"): ("#!/bin/sh\nif true; then\n", 3, "Syntax error"),
    ("director", "/etc/sysctl.d/50-ours.conf"): ("net.ipv4.ip_forward = 1\nnonsense\n", 2, "invalid syntax"),
    ("web", "/etc/apache2/sites-enabled/site.conf"): ("KeepAlive On\nFoo bar\n", 2, "Invalid command 'Foo'"),
    ("web-1", "/etc/exports"): ("/srv/uploads 198.18.1.0/24(rw,foo)\n", 1, "exportfs does not export"),
    ("web", "/etc/ganglia/gmond.conf"): ("globals {\n  nonsense = 1\n}\n", 2, "no such option"),
    ("db", "/etc/mysql/mariadb.conf.d/70-ours.cnf"): ("[mysqld]\nfoo_bar = 1\n", 2, "unknown variable"),
}
"""Nodes and path -> a file that its program refuses, the line, and words of the refusal."""


def test_every_program_names_the_line_that_it_refuses(tmp_path: Path) -> None:
    text = ""
    for number, ((nodes, path), (content, _, _)) in enumerate(WRONG.items()):
        file = tmp_path / f"file-{number}"
        file.write_text(content)
        file.chmod(0o755 if "boot.d" in path else 0o600)
        text += f'[[overlays]]\nnodes = "{nodes}"\npath = "{path}"\nsource = "{file.name}"\n'
    cluster = tmp_path / "cluster.toml"
    cluster.write_text(shipped()["ultramonkey"].read_text() + text)
    _, *found = doctor.programs(load(str(cluster)))
    for number, (_, line, words) in enumerate(WRONG.values()):
        assert [each.what for each in found if words in each.seen] == [f"{tmp_path}/file-{number}:{line}"], found
    assert not [each for each in found if "topsecret" in each.seen]
