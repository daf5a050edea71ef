"""The Docker Engine (or the socket of rootful Podman) that labs run on. Only this package talks to it."""

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
from harness.wait import NotYet, until

LABEL = "monkeywrench.lab"
"""On everything that belongs to a lab; its value is the lab's name."""

SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")
TIMEOUT_S = 120
POOL = 64
"""Open connections: one per control channel, and some for other commands."""


class EngineError(LabError):
    """No usable engine."""


def address() -> str:
    """The engine's address: ``DOCKER_HOST``, or the first socket that exists."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    for path in SOCKETS:
        if Path(path).is_socket():
            return f"unix://{path}"
    raise EngineError(
        f"no Docker Engine found: DOCKER_HOST is not set, and there is no socket at {' or '.join(SOCKETS)}",
        "Run `make setup` to install and start one, or set DOCKER_HOST.",
    )


def connect() -> Any:
    """A client of the engine. Raises EngineError when none answers."""
    where = address()
    try:
        client = docker.DockerClient(base_url=where, timeout=TIMEOUT_S, max_pool_size=POOL)
        client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        if isinstance(error, PermissionError) or "Permission denied" in str(error):
            raise EngineError(
                f"permission denied for the Docker Engine at {where}",
                "Run as root, or as a member of the engine's group (usually `docker`).",
            ) from None
        raise EngineError(
            f"the Docker Engine at {where} does not answer",
            "Run `make setup` to install and start one, or set DOCKER_HOST.",
        ) from None
    return client


def wait_until_it_answers(within_s: float) -> None:
    """Wait for an engine that was just started. Raises Timeout with the last reason."""

    def answers() -> bool:
        try:
            connect()
        except EngineError as error:
            raise NotYet(str(error)) from None
        return True

    until(answers, within_s, "the Docker Engine to answer", every_s=0.2)


def explained(error: BaseException) -> LabError | None:
    """The sentence for an error that the engine, or the connection to it, raised; None for any other error."""
    if isinstance(error, docker.errors.DockerException | requests.exceptions.RequestException):
        return explain(error)
    return None


def explain(error: Exception) -> LabError:
    """An error of the engine as a sentence with a next step."""
    text = str(getattr(error, "explanation", None) or error)
    if "no space left" in text:
        return LabError(
            "the engine's disk is full", "Free some space (`docker system df` shows what uses it), then try again."
        )
    return LabError(f"the Docker Engine reported an error: {text}")


def containers(client: Any, lab: str | None = None) -> list[Any]:
    """All containers of one lab, or of every lab, running or not."""
    label = f"{LABEL}={lab}" if lab else LABEL
    return list(client.containers.list(all=True, filters={"label": label}, ignore_removed=True))


def run_to_end(client: Any, image: str, command: Sequence[str], labels: dict[str, str], **options: Any) -> None:
    """Run a short-lived container to its end and remove it. An interruption waits for that.

    The engine creates a requested container even if the client no longer waits for the answer. If Ctrl-C broke off the
    request, the new container would be left behind.
    """
    with deferring_signals():
        client.containers.run(image, list(command), labels=labels, remove=True, **options)
