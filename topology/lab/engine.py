"""The Docker Engine (or rootful Podman's socket) that labs run on. Only this package talks to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

from harness.interrupts import deferring_signals
from harness.records import LabError

LABEL = "monkeywrench.lab"
"""On everything a lab makes; its value is the lab's name."""

SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")
TIMEOUT_S = 120
POOL = 64
"""Connections kept at once: one for each control channel, and some for commands beside them."""


class EngineError(LabError):
    """No usable engine."""


def address() -> str:
    """Where the engine is: ``DOCKER_HOST``, else the first socket there is."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    for path in SOCKETS:
        if Path(path).is_socket():
            return f"unix://{path}"
    raise EngineError(
        "there is no Docker Engine here: neither DOCKER_HOST nor a socket at " + " or ".join(SOCKETS),
        "Run `make setup` to install and start one, or set DOCKER_HOST.",
    )


def connect() -> Any:
    """A client of the engine. Raises EngineError, in a sentence, when none answers."""
    where = address()
    try:
        client = docker.DockerClient(base_url=where, timeout=TIMEOUT_S, max_pool_size=POOL)
        client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        if isinstance(error, PermissionError) or "Permission denied" in str(error):
            raise EngineError(
                f"you may not use the Docker Engine at {where}",
                "Run as root, or as a member of the engine's group (often `docker`).",
            ) from None
        raise EngineError(
            f"no Docker Engine answers at {where}", "Run `make setup` to install and start one, or set DOCKER_HOST."
        ) from None
    return client


def explain(error: Exception) -> LabError:
    """An engine's refusal as a sentence with a next step."""
    text = str(getattr(error, "explanation", None) or error)
    if "no space left" in text:
        return LabError(
            "the engine's disk is full", "Free some space (`docker system df` shows who has it), then try again."
        )
    return LabError(f"the Docker Engine refused: {text}")


def containers(client: Any, lab: str | None = None) -> list[Any]:
    """All containers of one lab, or of every lab, running or not."""
    label = f"{LABEL}={lab}" if lab else LABEL
    return list(client.containers.list(all=True, filters={"label": label}, ignore_removed=True))


def run_to_end(client: Any, image: str, command: Sequence[str], labels: dict[str, str], **options: Any) -> None:
    """Run a short-lived container to its end and remove it; an interruption waits for that.

    The engine makes a container that it was asked for, whether or not anybody still waits for the answer; so a request
    that Ctrl-C breaks off leaves one behind, made after all others were removed.
    """
    with deferring_signals():
        client.containers.run(image, list(command), labels=labels, remove=True, **options)
