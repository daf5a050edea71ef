"""What a comparison came to, with every number that it rests on; ``model_dump_json`` makes it a file."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Statistic = Literal["p50_ms", "p90_ms", "p99_ms", "error_share", "throughput_per_s", "knee_per_s"]


class Decision(StrEnum):
    """The four honest answers. What so few runs cannot tell is never rounded to ``no difference``."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    NO_DIFFERENCE = "no difference"
    NOT_ENOUGH = "not enough runs to tell"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tolerance(_Part):
    """The least difference that matters: the larger of a share of the baseline's median and a number of its unit."""

    share: float = Field(ge=0, description="Of the baseline's median; 0.05 is 5 percent")
    least: float = Field(ge=0, description="In the statistic's own unit: ms, a share of requests, or answers a second")


class CompareSettings(_Part):
    """How a comparison decides."""

    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="The chance of any false alarm among all that is looked at; intervals cover 1 - alpha",
    )
    judged: dict[Statistic, Tolerance] = Field(
        default={
            "p50_ms": Tolerance(share=0.10, least=10),
            "p90_ms": Tolerance(share=0.25, least=25),
            "p99_ms": Tolerance(share=0.50, least=100),
            "error_share": Tolerance(share=0, least=0.01),
            "knee_per_s": Tolerance(share=0.25, least=0),
        },
        min_length=1,
        description="What decides, and how much of a difference matters; each more asks for more runs",
    )


class Group(_Part):
    """One statistic in the runs of one side. The interval is that of the median of all such runs, by order."""

    values: dict[str, float] = Field(description="By the name of the run; runs that cannot tell are missing.")
    median: float | None
    low: float | None = Field(description="None: so few runs give no end.")
    high: float | None
    coverage: float | None


class Test(_Part):
    """Baseline against candidate. A shift is the candidate's less the baseline's, in the statistic's unit."""

    u: float = Field(description="Pairs of runs in which the candidate's value is larger; a tie is half a pair.")
    p: float = Field(description="Two-sided, exact.")
    p_corrected: float = Field(description="By Holm's method, for all comparisons of the family.")
    p_least: float = Field(description="The p of the most extreme outcome that so many runs can have.")
    shift: float = Field(description="Hodges and Lehmann's estimate.")
    shift_low: float | None = Field(description="None: so few runs give no end.")
    shift_high: float | None
    coverage: float
    cliffs_delta: float
    tolerance: float = Field(description="The least shift that matters.")


class Comparison(_Part):
    """One statistic of one endpoint."""

    endpoint: str
    statistic: Statistic
    judged: bool = Field(description="False: it is told, and decides nothing.")
    decision: Decision | None = Field(description="None where it is not judged.")
    sentence: str
    baseline: Group
    candidate: Group
    test: Test | None = Field(description="None where one side has no value.")
    runs_needed: int | None = Field(description="About so many runs in each group tell; None: they do already.")


class Endpoint(_Part):
    """All of one endpoint; ``all`` is every request, whatever it asked for."""

    endpoint: str
    decision: Decision
    sentence: str
    comparisons: tuple[Comparison, ...]


class Result(_Part):
    """Is the candidate slower than the baseline?"""

    decision: Decision
    summary: str
    notes: tuple[str, ...] = Field(description="What a reader must know of the runs: left out, set up otherwise.")
    baseline: tuple[str, ...] = Field(description="The names of the runs that were used.")
    candidate: tuple[str, ...]
    family: int = Field(description="How many comparisons p is corrected for.")
    settings: CompareSettings
    endpoints: tuple[Endpoint, ...] = Field(description="The worst first.")
