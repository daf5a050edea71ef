"""The cost of recording every op: our load generator beside Locust's own fast user and wrk, against one Apache.

Apache runs on the host's kernel, on loopback, on other processors than the generators, which run one after another on
one processor. Without wrk its row is empty.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import loadtests
from harness.history.latency import quantile
from harness.wait import NotYet, until
from topology.images.resolver import resolver
from topology.lab import engine

LABEL = "bench-load"
SECONDS, USERS = 20, 50
PER_S, SHARE = "requests per second", "% of Locust's"
PLANNED_PER_S = 1000
LOCUST = Path(sysconfig.get_path("scripts")) / "locust"
LOCUSTFILE = Path(loadtests.__file__).with_name("locustfile.py")
PORT = 18080
"""On loopback, hopefully unused."""

APACHE = f"""\
ServerName www.example.test
Listen 127.0.0.1:{PORT}
PidFile /tmp/bench.pid
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
TypesConfig /etc/mime.types
ErrorLog /dev/null
DocumentRoot /tmp/bench
DirectoryIndex index.html
KeepAlive On
MaxKeepAliveRequests 0
<Directory /tmp/bench>
    Require all granted
</Directory>
"""

PLAIN = """\
from locust import FastHttpUser, task

class Plain(FastHttpUser):
    @task
    def page(self):
        self.client.get("/")

class Visits(FastHttpUser):
    @task
    def visit(self):
        self.client.client.clientpool.close()
        for _ in range(4):
            self.client.get("/")
"""


def load_table(client: Any, image: str) -> dict[str, dict[str, float]]:
    """Each generator -> requests per second, and with planned ops how late they began, in ms."""
    rows: dict[str, dict[str, float]] = {}
    with _apache(client, image), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if shutil.which("wrk"):
            printed = _run("wrk", "-t1", f"-c{USERS}", f"-d{SECONDS}s", f"http://127.0.0.1:{PORT}/")
            if found := re.search(r"Requests/sec:\s+([\d.]+)", printed):
                rows["wrk"] = {PER_S: float(found[1])}
        else:
            rows["wrk: not installed here"] = {}
        (folder / "plain.py").write_text(PLAIN)
        plain_per_s = {}
        for who, what in (("Plain", "one connection"), ("Visits", "a connection for 4 requests")):
            _locust(folder / "plain.py", who, f"http://127.0.0.1:{PORT}", "--csv", f"{folder}/{who}")
            plain_per_s[who] = _from_csv(folder / f"{who}_stats.csv")
            rows[f"Locust, FastHttpUser, {what}"] = {PER_S: plain_per_s[who]}
        with _resolver(folder) as address:
            site = f"http://www.example.test:{PORT}"
            names = {"MONKEYWRENCH_RESOLVER": address, "MONKEYWRENCH_THINK_MS": "0"}
            for policy, beside, what in (
                ("keep-alive", "Plain", "one connection"),
                ("browser", "Visits", "a connection for 2 to 6"),
            ):
                asking = names | {"MONKEYWRENCH_CLIENT": policy}
                rows[f"ours, every op recorded, {what}"] = recorded = _ops(folder / policy, site, asking)
                silent = f"{folder}/silent-{policy}"
                _locust(LOCUSTFILE, "Visitor", site, "--csv", silent, **asking)
                rows[f"ours, nothing recorded, {what}"] = unrecorded = {PER_S: _from_csv(Path(f"{silent}_stats.csv"))}
                for row in (recorded, unrecorded):
                    row[SHARE] = 100 * row[PER_S] / plain_per_s[beside]
            plan = {"kind": "poisson", "seed": 1, "phases": [[SECONDS - 2, PLANNED_PER_S, PLANNED_PER_S]]}
            planned = names | {"MONKEYWRENCH_ARRIVALS": json.dumps(plan)}
            rows[f"ours, {PLANNED_PER_S} planned per second"] = _ops(folder / "open", site, planned)
    return rows


def _ops(place: Path, site: str, environment: dict[str, str]) -> dict[str, float]:
    """Run our visitors, and count the ops that they recorded."""
    _locust(LOCUSTFILE, "Visitor", site, **environment, MONKEYWRENCH_OPS=str(place))
    ops = [json.loads(line) for line in place.read_text().splitlines()]
    good = [op["t"] for op in ops if op["type"] == "ok"]
    late = [op["value"]["late_ms"] for op in ops if "late_ms" in op["value"]]
    row = {PER_S: len(good) / ((max(good) - min(good)) / 1e9)}
    if late:
        row |= {"late, median, ms": statistics.median(late), "late, p99, ms": quantile(late, 0.99)}
    return row


def _locust(file: Path, who: str, host: str, *more: str, **environment: str) -> None:
    users = ("--users", str(USERS), "--spawn-rate", str(USERS), "--run-time", f"{SECONDS}s")
    end = ("--exit-code-on-error", "0", "--stop-timeout", "2")
    _run(str(LOCUST), "--headless", "-f", str(file), "--host", host, *users, *end, *more, who, **environment)


def _run(*argv: str, **environment: str) -> str:
    """Run a command on the first processor."""
    command = ["taskset", "-c", "0", *argv]
    env = {**os.environ, **environment}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=10 * SECONDS)
    return done.stdout


def _from_csv(path: Path) -> float:
    """All requests per second, from Locust's own table."""
    head, *lines = (line.split(",") for line in path.read_text().splitlines())
    row = next(dict(zip(head, line, strict=False)) for line in lines if line[1] == "Aggregated")
    return float(row["Requests/s"])


@contextmanager
def _apache(client: Any, image: str) -> Iterator[None]:
    """An Apache with one small page, on all processors except the first."""
    script = 'mkdir -p /tmp/bench; echo "It works." > /tmp/bench/index.html; printf %s "$0" > /tmp/bench.conf'
    others = f"1-{(os.cpu_count() or 2) - 1}"
    container = client.containers.run(
        image,
        ["sh", "-c", f"{script}; exec apache2 -f /tmp/bench.conf -D FOREGROUND", APACHE],
        detach=True,
        init=True,
        network_mode="host",
        cpuset_cpus=others,
        labels={engine.LABEL: LABEL},
    )

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=2).close()
        except OSError as error:
            raise NotYet(f"{error}: {container.logs(tail=3)}") from error
        return True

    try:
        until(answers, 20, "Apache to answer", 0.2)
        yield
    finally:
        container.remove(force=True)


@contextmanager
def _resolver(folder: Path) -> Iterator[str]:
    """The lab's own resolver on loopback; yields its address."""
    zone = folder / "zone.toml"
    zone.write_text('zone = "example.test"\nsite = "www.example.test"\nttl_s = 60\naddresses = ["127.0.0.1"]\n')
    argv = [sys.executable, resolver.__file__, str(zone), "--address", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        found = re.search(r"on (127\.0\.0\.1:\d+) ", program.stdout.readline())
        assert found
        yield found[1]
        program.terminate()
