"""``locust -f loadtests/locustfile.py`` as Locust's users know it: with its page, where people choose and look."""

from __future__ import annotations

import json
import signal
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from harness.wait import NotYet, until
from tests.unit.test_load import dns, locust, site


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def fetch(url: str, **form: object) -> str:
    data = urllib.parse.urlencode(form).encode() if form else None
    try:
        with urllib.request.urlopen(url, data, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError as error:
        raise NotYet(str(error)) from error


def test_people_are_chosen_and_watched_on_the_page(tmp_path: Path) -> None:
    port = free_port()
    with site() as served, dns(tmp_path) as server:
        web = f"--web-host 127.0.0.1 --web-port {port} --class-picker"
        program = locust(served.port, server, web, {"MONKEYWRENCH_OPS": str(tmp_path / "ops")})
        page = f"http://127.0.0.1:{port}"
        try:
            shown = until(lambda: fetch(page), 60, "Locust's page", 0.2)
            assert all(name in shown for name in ("Visitor", "Player", "Uploader", "Administrator"))
            assert "Reader" not in shown
            host = f"http://www.example.test:{served.port}"
            fetch(f"{page}/swarm", user_count=3, spawn_rate=10, host=host, user_classes="Visitor")

            def counted() -> dict[str, Any]:
                stats: dict[str, Any] = json.loads(fetch(f"{page}/stats/requests"))
                if stats["user_count"] != 3 or not stats["stats"][0]["num_requests"]:
                    raise NotYet(f"{stats}")
                return stats

            stats = until(counted, 60, "requests on the page", 0.2)
            assert [each["name"] for each in stats["stats"]] == ["/", "Aggregated"]
            assert stats["stats"][0]["num_failures"] == 0
        finally:
            program.send_signal(signal.SIGTERM)
            _, errors = program.communicate(timeout=60)
    assert "Traceback" not in errors
    ops = [json.loads(line) for line in (tmp_path / "ops").read_text().splitlines()]
    assert {op["process"] for op in ops if op["f"] == "get"} == {"user:0", "user:1", "user:2"}
    assert ops[-1]["value"] == {"phase": "end"}
