"""Locust's own page on a real lab: opened, used, and gone without a trace."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.wait import NotYet
from tests.support.command import MONKEYWRENCH
from tests.support.faulty import eventually
from tests.support.locust import fetch
from topology.lab.docker_lab import DockerLab


def locust(lab: DockerLab, *words: str) -> subprocess.Popen[str]:
    argv = [*MONKEYWRENCH, "locust", "--lab", lab.name, *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def address(program: subprocess.Popen[str]) -> str:
    assert program.stderr is not None
    said = program.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", said)
    assert found, said + program.stderr.read()
    return found[0]


def test_people_are_started_on_the_page_and_ask_the_site_through_both_vips(lab: DockerLab, tmp_path: Path) -> None:
    ops_file = tmp_path / "ops.jsonl"
    program = locust(lab, "--port", "0", "--ops", str(ops_file))
    try:
        page = address(program)
        assert "Administrator" in eventually(lambda: fetch(page), "Locust's page")
        host = f"http://{lab.cluster.site}"
        fetch(f"{page}/swarm", user_count=6, spawn_rate=10, host=host, user_classes="Visitor")

        def counted() -> dict[str, Any]:
            stats: dict[str, Any] = json.loads(fetch(f"{page}/stats/requests"))
            if not stats["stats"] or stats["stats"][0]["num_requests"] < 20:
                raise NotYet(f"{stats}")
            return stats

        assert eventually(counted, "requests on the page")["stats"][0]["name"] == "/"
    finally:
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors
    with pytest.raises(NotYet):
        fetch(page)
    ops = [json.loads(line) for line in ops_file.read_text().splitlines()]
    assert {op["value"]["vip"] for op in ops if op["type"] == "ok"} == set(lab.cluster.vips)

    def gone() -> bool:
        left = lab.node("client").exec("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '[l]ocustfile'")
        if left.stdout.strip() != "0":
            raise NotYet(f"{left.stdout.strip()} of Locust's processes are left")
        return True

    assert eventually(gone, "Locust to end")


def test_words_are_locusts_own_and_a_wrong_one_is_told(lab: DockerLab) -> None:
    program = locust(lab, "--port", "0", "Player", "--users", "many")
    _, errors = program.communicate(timeout=60)
    assert "invalid int value: 'many'" in errors
    assert program.returncode == 2


def test_a_port_that_is_taken_is_a_sentence(lab: DockerLab) -> None:
    first = locust(lab, "--port", "0")
    try:
        port = address(first).rpartition(":")[2]
        _, errors = locust(lab, "--port", port).communicate(timeout=60)
        assert f"cannot use port {port} of 127.0.0.1: Address already in use" in errors
        assert "Next: Choose another port." in errors
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
