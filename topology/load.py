"""Reading a topology from TOML: a shipped one by its name, or a file of the user's.

Each error names the file, the place in it and what is accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness import reading
from harness.mistakes import mistakes
from topology.model import ClockKind, CostPreset, Overlay, Topology, TopologyError


def shipped() -> dict[str, Path]:
    """The topologies shipped with monkeywrench, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def load(name_or_path: str, clock: ClockKind | None = None, cost: CostPreset | None = None) -> Topology:
    """Read a topology by the name of a shipped one, or from a TOML file. Raises TopologyError.

    ``clock`` replaces the clock that the file asks for, and ``cost`` its table of costs.
    """
    path = shipped().get(name_or_path) or Path(name_or_path)
    try:
        text = reading.read_text(path)
    except reading.ReadingError as error:
        raise TopologyError(
            f"cannot read topology {reading.shown(name_or_path)}: {error}",
            f"Give a TOML file, or the name of a shipped topology: {', '.join(shipped())}.",
        ) from None
    topology = parse(text, str(path), clock, cost)
    overlays = tuple(_found(overlay, path) for overlay in topology.overlays)
    return topology.model_copy(update={"overlays": overlays}) if overlays else topology


def as_before(dumped: Mapping[str, Any]) -> Topology:
    """The topology of an earlier lab. Raises TopologyError if files of the user's are not as they were."""
    try:
        topology = Topology.model_validate(dumped)
    except ValidationError as error:
        raise TopologyError(
            f"the topology of that run cannot be read by this version: {mistakes(error, Topology)[0]}",
            "Check out the version that made the run.",
        ) from None
    for overlay in topology.overlays:
        if not reading.exists(overlay.source):
            raise TopologyError(
                f"{overlay.source}, which that run had on its nodes, does not exist any more", "Put it back."
            )
        if digest(overlay.source) != overlay.digest:
            raise TopologyError(
                f"{overlay.source}, which that run had on its nodes, has changed since", "Put back what it was."
            )
    return topology


def _found(overlay: Overlay, topology: Path) -> Overlay:
    """The overlay with an absolute source, and the digest of its current content."""
    source = topology.parent / overlay.source
    if not reading.exists(source):
        raise TopologyError(
            f"{topology}: overlays: source {reading.shown(overlay.source)} does not exist",
            "Give a file or a folder, relative to the topology's file.",
        )
    source = source.resolve()
    return overlay.model_copy(update={"source": source, "digest": digest(source)})


def sources(source: Path) -> Iterator[tuple[str, Path]]:
    """The files of an overlay's source: (path below it, file); a single file has the path ``""``."""
    if source.is_file():
        yield "", source
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        if path.is_file():
            yield f"/{path.relative_to(source)}", path


def digest(source: Path) -> str:
    """A digest of all files of an overlay's source, with their names and modes."""
    total = hashlib.sha256()
    for below, path in sources(source):
        content = path.read_bytes()
        total.update(f"{below}\0{path.stat().st_mode & 0o777:o}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]


def parse(text: str, source: str, clock: ClockKind | None = None, cost: CostPreset | None = None) -> Topology:
    """Read a topology from TOML text; ``source`` names it in errors. Raises TopologyError."""
    try:
        table = reading.toml(text)
        given = {name: value for name, value in (("clock", clock), ("cost", cost)) if value}
        return Topology.model_validate({**table, **given})
    except reading.ReadingError as error:
        raise TopologyError(f"{source}: {error}") from None
    except ValidationError as error:
        raise TopologyError("\n".join(f"{source}: {mistake}" for mistake in mistakes(error, Topology))) from None
