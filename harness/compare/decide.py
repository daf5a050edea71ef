"""The decision on the numbers of runs: for each statistic, for each endpoint, and overall. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import get_args

from harness.algorithms import rank_tests
from harness.compare.measures import ALL, KNEE, Measures
from harness.compare.result import (
    CompareSettings,
    Comparison,
    Decision,
    Endpoint,
    Group,
    Result,
    Statistic,
    Test,
    Tolerance,
)
from harness.errors import UserError
from harness.history.timeline import count_of

MOST_RUNS = 60
"""Limit per side. The exact distribution for more runs takes minutes, and more runs would hardly change a decision."""

SMALLER_IS_WORSE = frozenset({"throughput_per_s", KNEE})

Key = tuple[str, Statistic]


class CompareError(UserError):
    """Runs that cannot be compared. The message is a sentence."""


def compare(
    baseline: Sequence[Measures], candidate: Sequence[Measures], settings: CompareSettings | None = None
) -> Result:
    """Decide whether the candidate's runs are slower than the baseline's or fail more often.

    For each judged statistic of each endpoint:

    - ``regression`` or ``improvement``: the exact Mann-Whitney test is significant at ``alpha`` after Holm's correction
      for all judged comparisons that could be significant, and the estimated shift reaches the tolerance;
    - ``no difference``: neither, and the whole interval of the shift is below the tolerance;
    - ``not enough runs to decide``: everything else, because absence of evidence is not evidence of absence.

    The decision on an endpoint is the first of these that one of its statistics has: regression, undecided with a
    possible regression, improvement, undecided without a possible regression, no difference. The overall decision
    follows from the endpoints in the same way.

    Raises CompareError for runs of different topologies or scenarios, for a run that occurs twice, and for a side
    without a usable run.
    """
    settings = settings or CompareSettings()
    notes = [run.unusable for run in (*baseline, *candidate) if run.unusable]
    before, now = ([run for run in runs if not run.unusable] for runs in (baseline, candidate))
    _refuse(before, now, notes)
    pairs = _pairs(before, now)
    notes += [*_different_settings(before, now), *_not_judged(pairs, settings)]
    shared, family = _corrected(pairs, settings)
    found = [_endpoint(endpoint, pairs, shared, family, settings) for endpoint in _names(before, now)]
    endpoints = tuple(sorted(found, key=lambda each: _place(each.comparisons)))  # worst first
    decision = ORDER[min(_place(each.comparisons) for each in endpoints)]
    return Result(
        decision=decision,
        summary=_summary(decision, endpoints, len(before), len(now)),
        notes=tuple(notes),
        baseline=tuple(run.name for run in before),
        candidate=tuple(run.name for run in now),
        family=family,
        settings=settings,
        endpoints=endpoints,
    )


# --- what cannot be compared


def _refuse(before: Sequence[Measures], now: Sequence[Measures], reasons: Sequence[str]) -> None:
    for side, runs in (("baseline", before), ("candidate", now)):
        if not runs:
            raise CompareError(" ".join([f"The {side} has no usable run.", *reasons]))
        if len(runs) > MOST_RUNS:
            raise CompareError(f"The {side} has {len(runs)} runs; at most {MOST_RUNS} can be compared.")
    first, *others = (*before, *now)
    names = [run.name for run in (first, *others)]
    for name in names:
        if names.count(name) > 1:
            raise CompareError(f"Run {name} occurs more than once.")
    for run in others:
        if run.scenario != first.scenario:
            raise CompareError(
                f"{first.name} and {run.name} have different scenarios: {first.scenario} and {run.scenario}."
            )
        for key in sorted(first.topology.keys() | run.topology.keys()):
            ours, theirs = first.topology.get(key), run.topology.get(key)
            if ours != theirs:
                raise CompareError(
                    f"{first.name} and {run.name} have different topologies: {key} is {ours} in {first.name} and "
                    f"{theirs} in {run.name}."
                )


def _different_settings(before: Sequence[Measures], now: Sequence[Measures]) -> Iterator[str]:
    """Settings that differ between the runs: noted but accepted, because they may be what the user wants to compare."""
    for key in sorted({key for run in (*before, *now) for key in run.facts}):
        sides = [sorted({str(run.facts.get(key)) for run in runs}) for runs in (before, now)]
        if sides[0] != sides[1] or len(sides[0]) > 1:
            ours, theirs = (" and ".join(side) for side in sides)
            yield f"Different settings: {key} is {ours} in the baseline and {theirs} in the candidate."


# --- numbers


@dataclass(frozen=True)
class Sides:
    """One statistic of one endpoint: its values by the name of the run, for runs that have it."""

    before: Mapping[str, float]
    now: Mapping[str, float]
    runs: tuple[int, int]

    @property
    def values(self) -> tuple[list[float], list[float]]:
        """The values of both sides."""
        return list(self.before.values()), list(self.now.values())

    @property
    def complete(self) -> bool:
        """Whether every run of the baseline has it. If it is too rare in some, more such runs would not help."""
        return len(self.before) == self.runs[0]

    @property
    def differ(self) -> bool:
        """Whether both sides have it, and not all values are equal."""
        return bool(self.before and self.now) and len({*self.before.values(), *self.now.values()}) > 1


def _names(before: Sequence[Measures], now: Sequence[Measures]) -> list[str]:
    """All endpoints; without ``all`` if there is only one other, which would be the same."""
    names = sorted({name for run in (*before, *now) for name in run.endpoints} - {ALL})
    return [ALL, *names] if len(names) > 1 else names


def _pairs(before: Sequence[Measures], now: Sequence[Measures]) -> dict[Key, Sides]:
    pairs = {
        (endpoint, statistic): Sides(
            _values(before, endpoint, statistic), _values(now, endpoint, statistic), (len(before), len(now))
        )
        for endpoint in _names(before, now)
        for statistic in get_args(Statistic)
    }
    # most loads have no knee, and single endpoints never have one
    return {key: sides for key, sides in pairs.items() if key[1] != KNEE or sides.before or sides.now}


def _values(runs: Sequence[Measures], endpoint: str, statistic: str) -> dict[str, float]:
    found = ((run.name, run.endpoints.get(endpoint, {}).get(statistic)) for run in runs)
    return {name: value for name, value in found if value is not None}


def _corrected(pairs: Mapping[Key, Sides], settings: CompareSettings) -> tuple[dict[Key, float], int]:
    """The corrected p of every judged comparison, and the number of comparisons that it is corrected for.

    A comparison that could never be significant does not count: one whose value is the same in all runs, such as no
    errors, or that only one side has. Its p is 1.
    """
    judged = {key: sides for key, sides in pairs.items() if key[1] in settings.judged and sides.complete}
    attainable = {key: rank_tests.attainable_p(*sides.values) for key, sides in judged.items() if sides.differ}
    family = rank_tests.testable(attainable, settings.alpha) or attainable.keys()
    found = rank_tests.holm({key: rank_tests.rank_sum(*judged[key].values).p for key in family})
    return {key: found.get(key, 1.0) for key in judged}, max(len(family), 1)


def _not_judged(pairs: Mapping[Key, Sides], settings: CompareSettings) -> Iterator[str]:
    """Statistics that cannot be judged with any number of runs of this length."""
    for statistic in settings.judged:
        rare = [endpoint for (endpoint, its), sides in pairs.items() if its == statistic and not sides.complete]
        if rare:
            yield (
                f"Not judged: {NAMES[statistic]} of {', '.join(rare)}, because not every run of the baseline has "
                "enough answers. Use longer runs."
            )


def _test(sides: Sides, corrected: float | None, tolerance: Tolerance, alpha: float) -> Test | None:
    before, now = sides.values
    if not before or not now:
        return None
    found, interval = rank_tests.rank_sum(before, now), rank_tests.shift_interval(before, now, alpha)
    return Test(
        u=found.u,
        p=found.p,
        p_corrected=found.p if corrected is None else corrected,
        p_least=rank_tests.least_p(len(before), len(now)),
        shift=rank_tests.shift(before, now),
        shift_low=interval.low,
        shift_high=interval.high,
        coverage=interval.coverage,
        cliffs_delta=rank_tests.cliffs_delta(before, now),
        tolerance=max(tolerance.share * median(before), tolerance.least),
    )


def _group(values: Mapping[str, float], alpha: float) -> Group:
    if not values:
        return Group(values={}, median=None, low=None, high=None, coverage=None)
    interval = rank_tests.quantile_interval(list(values.values()), 0.5, alpha)
    return Group(
        values=dict(values),
        median=median(values.values()),
        low=interval.low,
        high=interval.high,
        coverage=interval.coverage,
    )


# --- decisions

UNJUDGED = Tolerance(share=0, least=0)


def _endpoint(
    endpoint: str, pairs: Mapping[Key, Sides], corrected: Mapping[Key, float], family: int, settings: CompareSettings
) -> Endpoint:
    each = tuple(
        _comparison(key, sides, corrected, family, settings) for key, sides in pairs.items() if key[0] == endpoint
    )
    decision = ORDER[_place(each)]
    reason = next(
        (comparison.sentence for comparison in each if comparison.decision is decision),
        f"{endpoint}: no statistic can be judged.",
    )
    return Endpoint(endpoint=endpoint, decision=decision, sentence=reason, comparisons=each)


def _comparison(
    key: Key, sides: Sides, corrected: Mapping[Key, float], family: int, settings: CompareSettings
) -> Comparison:
    endpoint, statistic = key
    judged = key in corrected
    test = _test(sides, corrected.get(key), settings.judged.get(statistic, UNJUDGED), settings.alpha)
    decision = _decision(statistic, test, settings.alpha, family) if judged else None
    needed = _needed(sides, test, settings.alpha, family) if decision is Decision.NOT_ENOUGH else None
    return Comparison(
        endpoint=endpoint,
        statistic=statistic,
        judged=judged,
        decision=decision,
        sentence=_sentence(key, sides, test, decision, needed),
        baseline=_group(sides.before, settings.alpha),
        candidate=_group(sides.now, settings.alpha),
        test=test,
        runs_needed=needed,
    )


def _decision(statistic: str, test: Test | None, alpha: float, family: int) -> Decision:
    if test is None:
        return Decision.NOT_ENOUGH
    if test.p_corrected <= alpha and abs(test.shift) >= test.tolerance:
        worse = test.shift < 0 if statistic in SMALLER_IS_WORSE else test.shift > 0
        return Decision.REGRESSION if worse else Decision.IMPROVEMENT
    # a difference that this number of runs could not show must not count as absent
    findable = test.p_least * family <= alpha
    return Decision.NO_DIFFERENCE if findable and _within_tolerance(test) else Decision.NOT_ENOUGH


def _within_tolerance(test: Test) -> bool:
    if test.shift_low is None or test.shift_high is None:
        return False
    return max(abs(test.shift_low), abs(test.shift_high)) < test.tolerance or test.shift_low == test.shift_high == 0


def _needed(sides: Sides, test: Test | None, alpha: float, family: int) -> int:
    """Estimated number of runs per side for a decision: enough for a significant test and a narrow enough interval.

    The interval should be as wide as the tolerance: then it is usually within plus and minus the tolerance if nothing
    has changed.
    """
    findable = rank_tests.runs_for(alpha / family)
    have = min(len(sides.before), len(sides.now))
    if test is None or test.shift_low is None or test.shift_high is None or have < findable or not test.tolerance:
        return findable
    half = (test.shift_high - test.shift_low) / 2
    return max(findable, rank_tests.runs_for_width(have, half, test.tolerance / 2))


ORDER = (
    Decision.REGRESSION,
    Decision.NOT_ENOUGH,
    Decision.IMPROVEMENT,
    Decision.NOT_ENOUGH,
    Decision.NO_DIFFERENCE,
)
"""The order of precedence. The first ``not enough`` may hide a regression, the second one cannot."""


def _place(comparisons: Iterable[Comparison]) -> int:
    """The place of the worst one in that order; without a judged one, there may be a regression."""
    places = [
        3 if each.decision is Decision.NOT_ENOUGH and not _may_be_worse(each) else ORDER.index(each.decision)
        for each in comparisons
        if each.decision is not None
    ]
    return min(places, default=1)


def _may_be_worse(comparison: Comparison) -> bool:
    """Whether the interval of the shift includes a regression."""
    test = comparison.test
    if test is None or test.shift_low is None or test.shift_high is None:
        return True
    worst = -test.shift_low if comparison.statistic in SMALLER_IS_WORSE else test.shift_high
    return worst >= test.tolerance


# --- sentences

NAMES = {
    "p50_ms": "median latency",
    "p90_ms": "90th percentile of latency",
    "p99_ms": "99th percentile of latency",
    "error_share": "error rate",
    "throughput_per_s": "throughput",
    KNEE: "knee",
}


def _sentence(key: Key, sides: Sides, test: Test | None, decision: Decision | None, needed: int | None) -> str:
    endpoint, statistic = key
    what = f"{endpoint}, {NAMES[statistic]}"
    missing = "".join(f" {text}" for text in _missing(sides))
    if test is None:
        return f"{what}: one side has no data.{missing}"
    unit = "per_s" if statistic.endswith("_per_s") else statistic.rpartition("_")[2]
    before, now = (median(values) for values in sides.values)
    ends = (
        f"{_number(test.shift_low, unit)} to {_number(test.shift_high, unit)}"
        if test.shift_low is not None and test.shift_high is not None
        else "too few runs for an interval"
    )
    enough = f"; about {needed} runs per side are needed" if needed else ""
    head = f"{what}: {decision}; " if decision else f"{what}: "
    return (
        f"{head}{_number(before, unit, '')} -> {_number(now, unit, '')}, shift {_number(test.shift, unit)} ({ends}), "
        f"p = {test.p_corrected:.2g}{enough}.{missing}"
    )


def _missing(sides: Sides) -> Iterator[str]:
    for side, values, runs in (("baseline", sides.before, sides.runs[0]), ("candidate", sides.now, sides.runs[1])):
        if len(values) < runs:
            yield f"{runs - len(values)} of {runs} {side} runs have too few of these requests."


def _number(value: float, unit: str, sign: str = "+") -> str:
    if unit == "share":
        return f"{100 * value:{sign}.2f} %"
    return f"{value:{sign}.2f} ms" if unit == "ms" else f"{value:{sign}.2f}/s"


def _summary(decision: Decision, endpoints: Sequence[Endpoint], before: int, now: int) -> str:
    """The decision and its main reason."""
    runs = f"{count_of(now, 'candidate run')}, {count_of(before, 'baseline run')}"
    if decision is Decision.NO_DIFFERENCE:
        return f"No difference above the tolerance ({runs})."
    found = [each for endpoint in endpoints for each in endpoint.comparisons if each.decision is decision]
    named = list(dict.fromkeys(each.endpoint for each in found if each.endpoint != ALL)) or [ALL]
    if decision is Decision.NOT_ENOUGH:
        needed = max((each.runs_needed or 0 for each in found), default=0)
        enough = f" About {needed} runs per side are needed." if needed else ""
        return f"Not enough runs to decide on {', '.join(named)} ({runs}).{enough}"
    first = next(each for each in found if each.endpoint == named[0])
    return f"{decision.capitalize()} of {', '.join(named)} ({runs}). {first.sentence}"
