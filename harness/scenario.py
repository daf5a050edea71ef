"""A scenario: what happens to the lab, in which order, and what a healthy cluster is expected to do. A TOML file.

``catalogue.scenario_schema`` is the published schema of the file: these tables, and the settings of faults and checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness import reading
from harness.errors import UserError
from harness.mistakes import first_mistake, unknown

__all__ = [
    "CaptureTable",
    "DrawTable",
    "LoadTable",
    "Scenario",
    "ScenarioError",
    "ScenarioTable",
    "StepTable",
    "find",
    "load",
    "parse",
    "shipped",
    "under",
]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=60)]
"""A name that fits into the name of a directory and on a command line."""

Seconds = Annotated[float, Field(gt=0, le=3600)]

PACKAGE = Path(__file__).parent
SHIPPED = (PACKAGE / "scenarios", PACKAGE.parent / "loadtests" / "profiles")
"""The folders of the scenarios and the load profiles that come with monkeywrench.

``harness/scenarios`` is a link to ``tests/chaos`` in the repository, and a folder in an installed package.
"""


class ScenarioError(UserError):
    """A scenario that cannot be used: the file, the place in it, what is wrong, and what would be right."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, populate_by_name=False)


class ScenarioTable(_Table):
    """``[scenario]``: its name, and what it expects of the cluster."""

    name: Name
    title: str = Field(min_length=1, description="Headline of the report")
    topology: str = Field(default="ultramonkey", description="Name of a shipped topology, or path of a TOML file")
    seed: int = Field(default=1, ge=0, description="Seed for everything that a run draws at random")
    expectation: str = Field(min_length=1, description="What a healthy cluster does, in words")


class PhaseTable(_Table):
    """One phase of open arrivals."""

    per_s: float = Field(ge=0, le=10_000, description="Ops per second")
    to_per_s: float | None = Field(
        default=None, ge=0, le=10_000, description="Rate at the end of the phase; it changes evenly"
    )
    for_s: float | None = Field(
        default=None, gt=0, description="Length; the last phase may leave it out and last to the end"
    )


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
"""The ops of players, as in the locustfile's mix."""


class LoadTable(_Table):
    """``[load]``: simulated users of the site. Without this table there are none."""

    persona: Literal["visitors", "players", "uploaders", "administrators", "everyone", "log"] = Field(
        default="visitors",
        description="What the users do. visitors read the front page; players use everything that the site offers; "
        "uploaders upload and download; administrators change the site's content; everyone is a mix of these (5, 12, "
        "2 and 1 of 20 users). What users wrote is read back at the end of the run, for the checks of data. log: "
        "replay the requests of an access log",
    )
    log: str | None = Field(
        default=None,
        min_length=1,
        description="Path of an Apache access log, relative to the current directory, in the Common Log Format or a "
        "format that begins with it",
    )
    speed: float = Field(default=1, gt=0, description="Replay speed of the log: 2 is twice as fast")
    mix: Mapping[PlayerOp, Annotated[int, Field(ge=0)]] = Field(
        default={},
        description="Weights of the ops of players, for example { page = 8, score = 2 }; empty: the usual mix",
    )
    users: int = Field(default=10, ge=1, le=10_000, description="Number of simulated users")
    spawn_per_s: float = Field(default=10, gt=0, description="Users started per second, until all run")
    client: Literal["browser", "first-address", "keep-alive", "new-connections"] = Field(
        default="browser",
        description="How users reuse connections and addresses. browser: reuse a connection for several ops, and try "
        "the next address of the DNS answer if one does not accept. first-address: the same, but only the first "
        "address. keep-alive: one connection for the whole run. new-connections: one connection per op",
    )
    workers: int = Field(
        default=0,
        ge=0,
        le=32,
        description="Number of Locust worker processes that share the users, spread over the client nodes; 0: a single "
        "process without workers",
    )
    think_ms: int = Field(default=100, ge=0, description="Pause of each user after an op; unused with open arrivals")
    warm_up_s: float = Field(
        default=0,
        ge=0,
        description="Comparisons of runs ignore the ops of this first part of a run, when caches are cold",
    )
    connections: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Number of long downloads held open to each virtual IP, in addition to the users",
    )
    arrivals: Literal["closed", "constant", "poisson"] = Field(
        default="closed",
        description="closed: each user waits for the answer, then for think_ms. constant and poisson are open "
        "arrivals: ops are planned at a rate (evenly spaced or random), whether answers arrive or not, and response "
        "times count from the planned time",
    )
    phases: tuple[PhaseTable, ...] = Field(
        default=(), description="Rates of open arrivals, one phase after another; after the last phase no op is planned"
    )

    @model_validator(mode="after")
    def _rate(self) -> LoadTable:
        """Open arrivals need a rate; closed ones and a log must not have one."""
        if (self.persona == "log") != (self.log is not None):
            raise ValueError("persona = 'log' and log = FILE go together: give both or neither")
        if self.mix and (self.persona != "players" or not any(self.mix.values())):
            raise ValueError("mix needs persona = 'players' and at least 1 weight above 0")
        if self.persona == "log" and self.arrivals != "closed":
            raise ValueError("arrivals cannot be combined with a log, which has its own times")
        if (self.arrivals == "closed") == bool(self.phases):
            if self.phases:
                raise ValueError("phases need open arrivals: give arrivals = 'constant' or 'poisson'")
            raise ValueError(f"arrivals = {self.arrivals!r} needs phases: give at least 1")
        if any(phase.for_s is None for phase in self.phases[:-1]):
            raise ValueError("only the last phase may leave out for_s")
        return self

    @property
    def planned(self) -> bool:
        """Whether each op has a planned time, however slow the ops before it are."""
        return self.persona == "log" or self.arrivals != "closed"

    @property
    def ends(self) -> bool:
        """Whether the load ends on its own, after its last planned op."""
        return self.planned and all(phase.for_s is not None for phase in self.phases)


class CaptureTable(_Table):
    """``[capture]``: record packets to ``capture.pcapng`` in the run directory. Optional."""

    segments: tuple[str, ...] = Field(
        default=("internet", "heartbeat", "lan"), min_length=1, description="Segments whose packets are recorded"
    )
    filter: str = Field(default="", description="A pcap-filter(7) expression; empty records everything")


class DrawTable(_Table):
    """A fault that a step may draw."""

    inject: str = Field(min_length=1, description="Fault to inject, for example process.kill")
    settings: Mapping[str, Any] = Field(default={}, alias="with", description="Settings of the fault")


Span = Annotated[tuple[float, float], Field(description="Minimum and maximum, in seconds")]


class StepTable(_Table):
    """One of ``[[steps]]``: at most 1 verb, then optionally a condition to wait for, then optionally a pause."""

    name: str = Field(min_length=1)
    inject: str | None = Field(default=None, description="Fault to inject, for example node.power-off")
    settings: Mapping[str, Any] = Field(default={}, alias="with", description="Settings of the injected fault")
    label: Name | None = Field(default=None, alias="as", description="Label of the injected fault, for heal")
    heal: str | None = Field(default=None, description="Label of the injected fault to undo")
    at_s: float | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="Earliest beginning of the step, in seconds since the beginning of the run; exact in virtual time. "
        "A step whose turn comes later is done at once, and the check recovery is unknown",
    )
    until: Literal["steady", "owned", "asked"] | None = Field(
        default=None,
        description="Condition to wait for. steady: the lab has no problems; owned: the directors in owners hold the "
        "virtual IPs; asked: the load has issued its last planned op",
    )
    owners: Mapping[str, str] | None = Field(default=None, description="For owned: virtual IP -> director")
    within_s: Seconds | None = Field(default=None, description="Deadline of the condition, in seconds")
    hold_s: Seconds | None = Field(default=None, description="Pause under load and probes, in seconds")
    draw: tuple[DrawTable, ...] = Field(default=(), description="Faults to draw from, by the seed of the run")
    count: int = Field(default=5, ge=1, le=1000, description="For draw: number of injections")
    at_once: int = Field(default=1, ge=1, le=20, description="For draw: most faults at the same time")
    each_s: Span = Field(default=(2.0, 10.0), description="For draw: how long each fault is held")
    pause_s: Span = Field(default=(1.0, 5.0), description="For draw: time between two injections")

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        for wrong, sentence in (
            (self.inject and self.heal, "inject and heal are two verbs: use two steps"),
            (
                not (self.inject or self.heal or self.until or self.hold_s or self.draw or self.at_s is not None),
                "the step does nothing: give inject, heal, draw, until, hold_s or at_s",
            ),
            (
                self.draw and (self.inject or self.heal),
                "draw cannot be combined with inject or heal: use separate steps",
            ),
            (
                not self.draw and self.model_fields_set & {"count", "at_once", "each_s", "pause_s"},
                "count, at_once, each_s and pause_s need draw",
            ),
            (
                any(not 0 <= least <= most <= 3600 for least, most in (self.each_s, self.pause_s)),
                "each_s and pause_s are [minimum, maximum] in seconds, from 0 to 3600",
            ),
            (self.settings and not self.inject, "with needs inject: it holds the settings of the fault"),
            (self.label and not self.inject, "as needs inject: it labels the fault"),
            (self.until and self.within_s is None, "until needs a deadline: give within_s, in seconds"),
            (self.within_s is not None and not self.until, "within_s needs until: it is the deadline of the condition"),
            (
                self.until == "owned" and not self.owners,
                'until = "owned" needs owners: give the director of each virtual IP',
            ),
            (self.owners is not None and self.until != "owned", 'owners needs until = "owned"'),
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
            raise ValueError('until = "asked" needs a load that ends: replay a log, or give for_s in every phase')
        return self

    @property
    def name(self) -> str:
        """Its name, which is part of the run directory's name."""
        return self.scenario.name

    @property
    def title(self) -> str:
        """The headline of the report."""
        return self.scenario.title

    @property
    def expectation(self) -> str:
        """What a healthy cluster does, in words."""
        return self.scenario.expectation


def shipped() -> dict[str, Path]:
    """The scenarios and load profiles that come with monkeywrench, by name."""
    return {path.stem: path for folder in SHIPPED for path in sorted(folder.glob("*.toml"))}


def find(name_or_path: str) -> Path:
    """The file of a shipped scenario or load profile, by its name, or a TOML file. Raises ScenarioError."""
    known = shipped()
    path = known.get(name_or_path, Path(name_or_path))
    if not reading.is_file(path):
        raise ScenarioError(
            unknown("scenario", reading.brief(name_or_path), known),
            "Give the path of a TOML file, or the name of a shipped scenario.",
        )
    return path


def load(path: Path | str) -> Scenario:
    """Read a scenario file. Raises ScenarioError."""
    file = Path(path)
    try:
        text = reading.read_text(file)
    except reading.ReadingError as error:
        raise ScenarioError(f"cannot read {reading.shown(file)}: {error}") from error
    try:
        tables = reading.toml(text)
    except reading.ReadingError as error:
        raise ScenarioError(f"{file}: {error}") from error
    return parse(tables, str(file))


def under(wanted: Scenario, profile: Path | str) -> Scenario:
    """The same scenario under the load of another one. Raises ScenarioError."""
    load_of = load(profile).load
    if load_of is None:
        raise ScenarioError(f"{profile}: missing table [load]")
    try:
        return Scenario.model_validate({**dict(wanted), "load": load_of})
    except ValidationError as error:
        raise ScenarioError(f"{profile}: {first_mistake(error, Scenario)}") from error


def seeded(wanted: Scenario, seed: int | None) -> Scenario:
    """The same scenario with another seed; None leaves it as it is."""
    if seed is None:
        return wanted
    return wanted.model_copy(update={"scenario": wanted.scenario.model_copy(update={"seed": seed})})


def parse(tables: Mapping[str, Any], origin: str) -> Scenario:
    """The scenario in these tables; every error begins with ``origin``. Raises ScenarioError."""
    try:
        scenario = Scenario.model_validate(tables)
    except ValidationError as error:
        raise ScenarioError(f"{origin}: {first_mistake(error, Scenario)}") from error
    for name, settings in scenario.checks.items():
        _check_settings(name, settings, origin)
    return scenario


def _check_settings(name: str, settings: Mapping[str, Any], origin: str) -> None:
    from harness.checks import CHECKS  # see catalogue: they load numpy

    if name not in CHECKS:
        raise ScenarioError(f"{origin}: checks.{name}: {unknown('check', name, CHECKS)}")
    model = CHECKS[name].settings
    try:
        model.model_validate(settings)
    except ValidationError as error:
        raise ScenarioError(f"{origin}: {first_mistake(error, model, under=('checks', name))}") from error
