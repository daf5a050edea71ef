"""The site as a client of the lab uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import topology
from topology.lab.docker_lab import DockerLab

VIPS = ["203.0.113.101", "203.0.113.102"]
WEB = [f"web-{number}" for number in range(1, 7)]
OWN = Path(topology.__file__).parent / "site"
"""The lab's own site."""
CONTENT = "cd /srv/site && find . -type f | sort | xargs md5sum"


def ask(lab: DockerLab, vip: str, path: str, *curl: str, **form: object) -> dict[str, Any]:
    """One request of the client through a VIP; with ``form`` it is a POST. The answer's JSON, and its ``status``."""
    argv = ["curl", "-s", "--max-time", "60", "-w", "\n%{http_code}", *curl]
    argv += ["-d", urlencode(form)] if form else []
    body, _, status = lab.node("client").exec(*argv, f"http://{vip}{path}", timeout_s=70).stdout.rpartition("\n")
    return {**json.loads(body or "{}"), "status": int(status)}


def page(lab: DockerLab, node: str, path: str) -> str:
    """A page as one real server serves it, asked on the node itself."""
    asked = lab.node(node).exec("/usr/lib/monkeywrench/ask-http", "80", path, "www.ultramonkey.test", timeout_s=30)
    return asked.stdout


def contents(lab: DockerLab) -> set[str]:
    """What the site's folder holds, on all real servers: one if all have the same."""
    return {node.exec("sh", "-c", CONTENT, timeout_s=60).stdout for node in lab.nodes("web")}
