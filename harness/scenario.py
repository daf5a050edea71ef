"""A scenario: what happens to the lab, in which order, and what a right cluster does. Read from a TOML file.

``Scenario.model_json_schema()`` is the published schema of the file.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from harness.checks import CHECKS

__all__ = [
    "CaptureTable",
    "LoadTable",
    "Scenario",
    "ScenarioError",
    "ScenarioTable",
    "StepTable",
    "first_mistake",
    "load",
    "parse",
    "suggestion",
]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=60)]
"""A name that can be part of a directory's name and of a command line."""

Seconds = Annotated[float, Field(gt=0, le=3600)]


NEAR = 0.7
"""How much alike two words must be to be taken for each other (difflib's ratio): more than lb-1 and web-1."""


class ScenarioError(Exception):
    """The scenario is not right. One sentence: the file, the key, its place, and what would be right."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, populate_by_name=False)


class ScenarioTable(_Table):
    """``[scenario]``: what it is called and what it promises."""

    name: Name
    title: str = Field(min_length=1)
    topology: str = "ultramonkey"
    seed: int = Field(default=1, ge=0)
    promise: str = Field(min_length=1, description="What a right cluster does, in words")


class LoadTable(_Table):
    """``[load]``: users of the site. Without this table there are none."""

    users: int = Field(default=10, ge=1, le=10_000)
    spawn_per_s: float = Field(default=10, gt=0)
    think_ms: int = Field(default=100, ge=0)


class CaptureTable(_Table):
    """``[capture]``: record packets to ``capture.pcapng`` in the run directory. Without this table none are."""

    segments: tuple[str, ...] = Field(default=("internet", "heartbeat", "lan"), min_length=1)
    filter: str = Field(default="", description="A filter in the language of pcap-filter(7); empty records all")


class StepTable(_Table):
    """One of ``[[steps]]``: at most one verb, then perhaps a condition to wait for, then perhaps time that passes."""

    name: str = Field(min_length=1)
    inject: str | None = Field(default=None, description="The fault to inject, such as node.power-off")
    settings: Mapping[str, Any] = Field(default={}, alias="with", description="The settings of the injected fault")
    label: Name | None = Field(default=None, alias="as", description="What heal calls the injected fault")
    heal: str | None = Field(default=None, description="The label of the injected fault to undo")
    until: Literal["steady", "owned"] | None = Field(default=None, description="The condition to wait for")
    owners: Mapping[str, str] | None = Field(default=None, description="For owned: each virtual IP -> its director")
    within_s: Seconds | None = Field(default=None, description="How long the condition may take, in seconds")
    hold_s: Seconds | None = Field(default=None, description="Time to let pass under load and probes, in seconds")

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        for wrong, sentence in (
            (self.inject and self.heal, "inject and heal are two verbs: make them two steps"),
            (
                not (self.inject or self.heal or self.until or self.hold_s),
                "does nothing: give inject, heal, until or hold_s",
            ),
            (self.settings and not self.inject, "with gives the settings of a fault: give inject too"),
            (self.label and not self.inject, "as labels an injected fault: give inject too"),
            (self.until and self.within_s is None, "until needs a deadline: give within_s, in seconds"),
            (self.within_s is not None and not self.until, "within_s is the deadline of a condition: give until too"),
            (
                self.until == "owned" and not self.owners,
                'until = "owned" needs owners: give each virtual IP\'s director',
            ),
            (self.owners is not None and self.until != "owned", 'owners goes with until = "owned" only'),
        ):
            if wrong:
                raise ValueError(sentence)
        return self


class Scenario(_Table):
    """A whole scenario file."""

    scenario: ScenarioTable
    load: LoadTable | None = None
    capture: CaptureTable | None = None
    steps: tuple[StepTable, ...] = Field(min_length=1)
    checks: Mapping[str, Mapping[str, Any]] = Field(default={}, description="The settings of each check")

    @property
    def name(self) -> str:
        """Its name, part of the run directory's name."""
        return self.scenario.name

    @property
    def title(self) -> str:
        """Its headline in the report."""
        return self.scenario.title

    @property
    def promise(self) -> str:
        """What a right cluster does, in words."""
        return self.scenario.promise


def load(path: Path | str) -> Scenario:
    """Read a scenario file. Raises ScenarioError."""
    file = Path(path)
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{file}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{file}: is not TOML: {error}") from error
    return parse(tables, str(file))


def parse(tables: Mapping[str, Any], origin: str) -> Scenario:
    """The scenario that these tables are; ``origin`` begins every error. Raises ScenarioError."""
    try:
        scenario = Scenario.model_validate(tables)
    except ValidationError as error:
        raise ScenarioError(f"{origin}: {first_mistake(error, Scenario)}") from error
    for name, settings in scenario.checks.items():
        _check_settings(name, settings, origin)
    return scenario


def _check_settings(name: str, settings: Mapping[str, Any], origin: str) -> None:
    if name not in CHECKS:
        raise ScenarioError(f"{origin}: checks.{name}: there is no such check ({suggestion(name, CHECKS)})")
    model = CHECKS[name].settings
    try:
        model.model_validate(settings)
    except ValidationError as error:
        raise ScenarioError(f"{origin}: {first_mistake(error, model, under=('checks', name))}") from error


def first_mistake(error: ValidationError, model: type[BaseModel], under: tuple[str | int, ...] = ()) -> str:
    """The first of pydantic's errors as a clause: the place, what is wrong and what would be right.

    ``under`` is the place of the validated model in its file. Unknown keys come first: a misspelt key often makes
    another one missing.
    """
    errors = error.errors()
    first = min(errors, key=lambda e: e["type"] != "extra_forbidden")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{_place((*under, *first['loc']))}: {_what(first, model)}{more}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """``did you mean ...?`` where a known word is near, and in any case all known words."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=NEAR)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}known: {', '.join(words) or 'none'}"


def _place(loc: tuple[str | int, ...]) -> str:
    """``("steps", 2, "within_s")`` -> ``steps[2].within_s``, counted from 0."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".") or "the file"


def _what(error: ErrorDetails, model: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        return f"there is no such key ({suggestion(key, _keys(_model_at(model, error['loc'][:-1])))})"
    if error["type"] == "missing":
        return "is required, and missing"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    message = error["msg"]
    return f"{message[0].lower()}{message[1:]}, not {error['input']!r}"


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> type[BaseModel]:
    """The model of the table at a place, found by walking the annotations."""
    for part in loc:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        if part in fields:
            model = next(iter(_models_in(fields[part].annotation)), model)
    return model


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in {tuple, list, Union, UnionType}:
        for inner in get_args(annotation):
            if inner is not NoneType:
                yield from _models_in(inner)
