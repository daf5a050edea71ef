"""The control channel to a node's chassis: one ``docker exec`` that carries JSON lines, shared by all requests.

It needs no network of the lab, so no network fault can cut it.
"""

from __future__ import annotations

import itertools
import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

import docker.errors

from harness.records import LabError, Line
from topology.lab.pipe import Pipe

CONNECT = ["/usr/bin/python3", "-I", "-S", "/usr/lib/monkeywrench/connect.py"]

LOST = 255
"""The exit code of a program whose node is gone, as with ssh(1)."""


class ChannelClosedError(LabError):
    """The node's container is gone."""


class NodeRefusedError(LabError):
    """The chassis or the machine refused a request; ``console`` is the end of the machine's console."""

    def __init__(self, message: str, console: str = "") -> None:
        super().__init__(message)
        self.console = console


class Channel:
    """Requests to one chassis and their answers, for any number of threads."""

    def __init__(self, client: Any, container: Any) -> None:
        self._name = container.name
        try:
            self._pipe = Pipe(client, container, CONNECT)
        except docker.errors.APIError as error:  # it does not run, or is not there
            raise ChannelClosedError(f"the container {self._name} is gone: {error.explanation or error}") from None
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._read, name=f"channel {self._name}", daemon=True).start()

    def start(self, do: str, **values: Any) -> int:
        """Send a request; its answers are read with :meth:`answer` under the number returned."""
        number = next(self._numbers)
        with self._lock:
            if self._closed:
                raise ChannelClosedError(
                    f"the container {self._name} is gone", "Run `monkeywrench up` to boot a new lab."
                )
            self._answers[number] = queue.SimpleQueue()
            try:
                self._pipe.send(json.dumps({"id": number, "do": do, **values}).encode() + b"\n")
            except OSError as error:
                raise ChannelClosedError(f"the container {self._name} is gone: {error}") from None
        return number

    def answer(self, number: int, timeout_s: float | None) -> dict[str, Any]:
        """The next answer. Raises TimeoutError, and NodeRefusedError when the answer is a refusal."""
        try:
            message = self._answers[number].get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if "done" in message or "error" in message:
            self._answers.pop(number, None)
        if "error" in message:
            raise NodeRefusedError(message["error"], message.get("console", ""))
        return message

    def ask(self, do: str, timeout_s: float, **values: Any) -> dict[str, Any]:
        """A request that has one answer."""
        number = self.start(do, **values)
        try:
            return self.answer(number, timeout_s)
        except TimeoutError:
            raise NodeRefusedError(f"{self._name} did not answer {do!r} within {timeout_s:g} s") from None

    def tell(self, do: str, **values: Any) -> None:
        """A request without waiting for its answer."""
        with self._lock:
            if not self._closed:
                self._pipe.send(json.dumps({"id": next(self._numbers), "do": do, **values}).encode() + b"\n")

    def close(self) -> None:
        """End the connection, and with it the programs that it started on the node."""
        self._closed = True
        self._pipe.close()

    def _read(self) -> None:
        rest = b""
        try:
            for data in self._pipe.pieces():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._dispatch(json.loads(line))
        except OSError:
            pass
        with self._lock:
            self._closed = True
            waiting = list(self._answers.values())
        for answers in waiting:
            answers.put({"error": f"the container {self._name} is gone"})

    def _dispatch(self, message: dict[str, Any]) -> None:
        answers = self._answers.get(message["id"])
        if answers is not None:
            answers.put(message)


class Job:
    """A program that runs on a node, and its lines. Implements ``harness.protocols.Stream``."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel, self._number = channel, number
        self.exit_code = LOST
        """The program's exit code, once all of its output is read."""

    def __iter__(self) -> Iterator[Line]:
        rest, time_ns = "", 0
        while (message := self._next()) is not None:
            time_ns = message["t"]
            *lines, rest = (rest + message.get("out", "")).split("\n")
            for line in lines:
                yield Line(time_ns, line)
            if "done" in message:
                self.exit_code = int(message["done"])
                break
        if rest:
            yield Line(time_ns, rest)

    def stop(self) -> None:
        """End the program."""
        self._channel.tell("stop", job=self._number)

    def _next(self) -> dict[str, Any] | None:
        try:
            return self._channel.answer(self._number, None)
        except (NodeRefusedError, KeyError):
            return None


class Watch:
    """A machine's power and addresses as they change. Implements ``harness.protocols.Stream``."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._number = channel.start("watch")

    def __iter__(self) -> Iterator[Line]:
        while True:
            try:
                message = self._channel.answer(self._number, None)
            except (NodeRefusedError, KeyError):
                return
            yield Line(message["t"], json.dumps(message["watch"]))

    def stop(self) -> None:
        """Stop following."""
        self._channel.close()
