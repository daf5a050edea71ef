"""``locust -f loadtests/locustfile.py`` as Locust's users know it: with its page, where people choose and look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.wait import NotYet
from tests.support.locust import dns, fetch, free_port, locust, own_address, site
from tests.support.program import Op

pytestmark = pytest.mark.locust


def test_people_are_chosen_and_watched_on_the_page(tmp_path: Path) -> None:
    host, port = own_address(), free_port()

    def ops() -> list[Op]:
        return [
            json.loads(line) for line in (tmp_path / "ops").read_text().splitlines(keepends=True) if line[-1:] == "\n"
        ]

    with site() as served, dns(tmp_path) as server:
        web = f"--web-host {host} --web-port {port} --class-picker"
        program = locust(served.port, server, web, {"MONKEYWRENCH_OPS": str(tmp_path / "ops")})
        users = {"user:0", "user:1", "user:2"}
        page = f"http://{host}:{port}"
        try:
            shown = program.until(lambda: fetch(page), "Locust's page")
            assert all(name in shown for name in ("Visitor", "Player", "Uploader", "Administrator"))
            assert "Reader" not in shown
            target = f"http://www.example.test:{served.port}"
            fetch(f"{page}/swarm", user_count=3, spawn_rate=10, host=target, user_classes="Visitor")

            def counted() -> dict[str, Any]:
                stats: dict[str, Any] = json.loads(fetch(f"{page}/stats/requests"))
                if stats["user_count"] != 3 or not stats["stats"][0]["num_requests"]:
                    raise NotYet(f"{stats}")
                return stats

            stats = program.until(counted, "requests on the page")
            assert [each["name"] for each in stats["stats"]] == ["/", "Aggregated"]
            assert stats["stats"][0]["num_failures"] == 0
            program.until(lambda: {op["process"] for op in ops() if op["f"] == "get"} == users, "an op of each user")
        finally:
            program.terminate()
            assert program.end() == 0
    assert "Traceback" not in program.error_text
    assert {op["process"] for op in ops() if op["f"] == "get"} == users
    assert ops()[-1]["value"] == {"phase": "end"}
