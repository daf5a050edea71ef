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
from harness.errors import UserError

__all__ = [
    "CaptureTable",
    "DrawTable",
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


class ScenarioError(UserError):
    """The scenario is not right. One sentence: the file, the key, its place, and what would be right."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, populate_by_name=False)


class ScenarioTable(_Table):
    """``[scenario]``: what it is called and what it promises."""

    name: Name
    title: str = Field(min_length=1)
    topology: str = "ultramonkey"
    seed: int = Field(default=1, ge=0)
    expectation: str = Field(min_length=1, description="What a right cluster does, in words")


class PhaseTable(_Table):
    """One of the phases of open arrivals."""

    per_s: float = Field(ge=0, le=10_000, description="Ops a second")
    to_per_s: float | None = Field(default=None, ge=0, le=10_000, description="At its end, evenly from the one rate on")
    for_s: float | None = Field(default=None, gt=0, description="How long; the last phase may go on to the end")


PlayerOp = Literal[
    "page",
    "profile-read",
    "profile-write",
    "score",
    "score-read",
    "transfer",
    "coins",
    "upload",
    "download",
    "session",
]
"""What players can do: the ops of the locustfile's mix."""


class LoadTable(_Table):
    """``[load]``: users of the site. Without this table there are none."""

    persona: Literal["visitors", "players", "uploaders", "administrators", "everyone", "log"] = Field(
        default="visitors",
        description="Visitors read the front page; players do all that the site can; uploaders upload and download; "
        "administrators change the site's content; everyone: all of these, 5, 12, 2 and 1 of 20 users. What was "
        "written is read at the end, for the checks of data. log: whoever is in an access log asks for the same pages "
        "at the same times",
    )
    log: str | None = Field(
        default=None,
        min_length=1,
        description="An access log of Apache, in the Common Log Format or one that begins like it; its path from the "
        "folder that the command is run in",
    )
    speed: float = Field(default=1, gt=0, description="How many times as fast a log is played")
    mix: Mapping[PlayerOp, Annotated[int, Field(ge=0)]] = Field(
        default={}, description="What players do, by weight, such as { page = 8, score = 2 }; empty: the usual mix"
    )
    users: int = Field(default=10, ge=1, le=10_000, description="How many are there at once, at most")
    spawn_per_s: float = Field(default=10, gt=0, description="How many come a second, until all are there")
    client: Literal["browser", "first-address", "keep-alive", "new-connections"] = Field(
        default="browser",
        description="What they ask with. browser: a connection for some ops, then another one; where an address takes "
        "none, the next one of the answer is asked at once. first-address: the same, and no other is asked. "
        "keep-alive: one connection for good; new-connections: one for each op",
    )
    workers: int = Field(
        default=0,
        ge=0,
        le=32,
        description="How many processes share the users, on the client nodes in turn: Locust's own workers, and a "
        "master; 0: one process has them all",
    )
    think_ms: int = Field(default=100, ge=0, description="How long each pauses after an op; not with open arrivals")
    warm_up_s: float = Field(
        default=0,
        ge=0,
        description="What is asked in so many first seconds does not count where runs are compared: caches are cold",
    )
    connections: int = Field(
        default=0,
        ge=0,
        le=100,
        description="How many answers that go on and on are under way from each virtual IP, beside the users",
    )
    arrivals: Literal["closed", "constant", "poisson"] = Field(
        default="closed",
        description="closed: each user waits for the answer, and thinks. constant and poisson are open arrivals: ops "
        "are planned at a rate, evenly or by chance, whether answers come or not, and their times count from there",
    )
    phases: tuple[PhaseTable, ...] = Field(
        default=(), description="The rate of open arrivals, one phase after another; then nobody comes any more"
    )

    @model_validator(mode="after")
    def _rate(self) -> LoadTable:
        """A rate is what open arrivals have, and users who wait have not; a log has its own times."""
        if (self.persona == "log") != (self.log is not None):
            raise ValueError("persona = 'log' needs log, a file, and no others do")
        if self.mix and (self.persona != "players" or not any(self.mix.values())):
            raise ValueError(
                "mix is what players do, and they must do something: persona = 'players', a weight above 0"
            )
        if self.persona == "log" and self.arrivals != "closed":
            raise ValueError("arrivals: a log has its own times")
        if (self.arrivals == "closed") == bool(self.phases):
            raise ValueError(f"arrivals = {self.arrivals!r} with {len(self.phases)} phases: open arrivals have phases")
        if any(phase.for_s is None for phase in self.phases[:-1]):
            raise ValueError("phases: only the last one may go on to the end, without for_s")
        return self

    @property
    def planned(self) -> bool:
        """Whether ops have their times, whatever becomes of the ones before."""
        return self.persona == "log" or self.arrivals != "closed"

    @property
    def ends(self) -> bool:
        """Whether a time comes when all is asked that was planned."""
        return self.planned and all(phase.for_s is not None for phase in self.phases)


class CaptureTable(_Table):
    """``[capture]``: record packets to ``capture.pcapng`` in the run directory. Without this table none are."""

    segments: tuple[str, ...] = Field(default=("internet", "heartbeat", "lan"), min_length=1)
    filter: str = Field(default="", description="A filter in the language of pcap-filter(7); empty records all")


class DrawTable(_Table):
    """One of the faults that a step may draw."""

    inject: str = Field(min_length=1, description="The fault, such as process.kill")
    settings: Mapping[str, Any] = Field(default={}, alias="with", description="Its settings")


Span = Annotated[tuple[float, float], Field(description="The least and the most, in seconds")]


class StepTable(_Table):
    """One of ``[[steps]]``: at most one verb, then perhaps a condition to wait for, then perhaps time that passes."""

    name: str = Field(min_length=1)
    inject: str | None = Field(default=None, description="The fault to inject, such as node.power-off")
    settings: Mapping[str, Any] = Field(default={}, alias="with", description="The settings of the injected fault")
    label: Name | None = Field(default=None, alias="as", description="What heal calls the injected fault")
    heal: str | None = Field(default=None, description="The label of the injected fault to undo")
    until: Literal["steady", "owned", "asked"] | None = Field(
        default=None,
        description="The condition to wait for: steady, that nothing is wrong in the lab; owned, that owners hold the "
        "virtual IPs; asked, that the load has asked all that it had planned",
    )
    owners: Mapping[str, str] | None = Field(default=None, description="For owned: each virtual IP -> its director")
    within_s: Seconds | None = Field(default=None, description="How long the condition may take, in seconds")
    hold_s: Seconds | None = Field(default=None, description="Time to let pass under load and probes, in seconds")
    draw: tuple[DrawTable, ...] = Field(default=(), description="Faults to draw from, by the run's seed")
    count: int = Field(default=5, ge=1, le=1000, description="For draw: how many faults to inject")
    at_once: int = Field(default=1, ge=1, le=20, description="For draw: at most so many at the same time")
    each_s: Span = Field(default=(2.0, 10.0), description="For draw: how long each stays in")
    pause_s: Span = Field(default=(1.0, 5.0), description="For draw: the time between two injections")

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        for wrong, sentence in (
            (self.inject and self.heal, "inject and heal are two verbs: make them two steps"),
            (
                not (self.inject or self.heal or self.until or self.hold_s or self.draw),
                "does nothing: give inject, heal, draw, until or hold_s",
            ),
            (self.draw and (self.inject or self.heal), "draw is a verb of its own: make it a step of its own"),
            (
                not self.draw and self.model_fields_set & {"count", "at_once", "each_s", "pause_s"},
                "count, at_once, each_s and pause_s go with draw only",
            ),
            (
                any(not 0 <= least <= most <= 3600 for least, most in (self.each_s, self.pause_s)),
                "each_s and pause_s are the least and the most, in seconds, at most 3600",
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

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if any(step.until == "asked" for step in self.steps) and not (self.load and self.load.ends):
            raise ValueError(
                'until = "asked" never comes: give a load that is planned to its end, by a log or by for_s'
            )
        return self

    @property
    def name(self) -> str:
        """Its name, part of the run directory's name."""
        return self.scenario.name

    @property
    def title(self) -> str:
        """Its headline in the report."""
        return self.scenario.title

    @property
    def expectation(self) -> str:
        """What a right cluster does, in words."""
        return self.scenario.expectation


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


def under(wanted: Scenario, profile: Path | str) -> Scenario:
    """The same scenario under the load of another one. Raises ScenarioError."""
    load_of = load(profile).load
    if load_of is None:
        raise ScenarioError(f"{profile}: there is no [load] in it")
    try:
        return Scenario.model_validate({**dict(wanted), "load": load_of})
    except ValidationError as error:
        raise ScenarioError(f"{profile}: {first_mistake(error, Scenario)}") from error


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
