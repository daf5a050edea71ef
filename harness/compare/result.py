"""The result of a comparison with all of its numbers; ``comparison.json`` has it as JSON."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Statistic = Literal["p50_ms", "p90_ms", "p99_ms", "error_share", "throughput_per_s", "knee_per_s"]


class Decision(StrEnum):
    """The four possible decisions. Too few runs never count as ``no difference``."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    NO_DIFFERENCE = "no difference"
    NOT_ENOUGH = "not enough runs to decide"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tolerance(_Part):
    """The smallest change to report: the larger of a share of the baseline's median and an absolute value."""

    share: float = Field(ge=0, allow_inf_nan=False, description="Share of the baseline's median; 0.05 is 5 %.")
    least: float = Field(
        ge=0,
        allow_inf_nan=False,
        description="Absolute value in the unit of the statistic: ms, share of requests, or answers per second.",
    )


class CompareSettings(_Part):
    """How a comparison decides."""

    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Probability of any false alarm in the whole comparison; intervals cover 1 - alpha.",
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
        description="The statistics that decide, and their tolerances; every additional one needs more runs.",
    )


class Group(_Part):
    """One statistic in the runs of one side. The interval is a confidence interval of the median (order statistics)."""

    values: dict[str, float] = Field(description="Value of each run; runs without enough data are missing.")
    median: float | None
    low: float | None = Field(description="Lower end of the interval; null if there are too few runs for one.")
    high: float | None = Field(description="Upper end of the interval.")
    coverage: float | None = Field(description="Exact confidence level of the interval.")


class Test(_Part):
    """The test of one statistic. A shift is the candidate's value minus the baseline's, in the statistic's unit."""

    u: float = Field(
        description="Number of pairs of runs in which the candidate's value is larger; a tie counts as half a pair."
    )
    p: float = Field(description="Exact two-sided p-value of the Mann-Whitney test.")
    p_corrected: float = Field(description="p corrected by Holm's method for all comparisons of the family.")
    p_least: float = Field(description="Smallest p that this number of runs can reach.")
    shift: float = Field(description="Hodges-Lehmann estimate of the shift.")
    shift_low: float | None = Field(description="Lower end of its interval; null if there are too few runs for one.")
    shift_high: float | None = Field(description="Upper end of its interval.")
    coverage: float = Field(description="Exact confidence level of the interval.")
    cliffs_delta: float = Field(description="Cliff's delta, from -1 to 1; 1: all candidate values are larger.")
    tolerance: float = Field(description="Smallest shift to report.")


class Comparison(_Part):
    """One statistic of one endpoint."""

    endpoint: str
    statistic: Statistic
    judged: bool = Field(description="Whether it counts for the decision; otherwise it is only shown.")
    decision: Decision | None = Field(description="Null if it is not judged.")
    sentence: str
    baseline: Group
    candidate: Group
    test: Test | None = Field(description="Null if one side has no value.")
    runs_needed: int | None = Field(
        description="Estimated number of runs per side for a decision; null if there already are enough."
    )


class Endpoint(_Part):
    """All statistics of one endpoint; ``all`` has every request."""

    endpoint: str
    decision: Decision
    sentence: str
    comparisons: tuple[Comparison, ...]


class Result(_Part):
    """The answer to: is the candidate slower than the baseline?"""

    decision: Decision
    summary: str
    notes: tuple[str, ...] = Field(description="Remarks on the runs: those left out, and different settings.")
    baseline: tuple[str, ...] = Field(description="Names of the runs that were used.")
    candidate: tuple[str, ...] = Field(description="The same for the candidate.")
    family: int = Field(description="Number of comparisons for which p is corrected.")
    settings: CompareSettings
    endpoints: tuple[Endpoint, ...] = Field(description="All endpoints, worst first.")
