"""From the numbers of runs to a decision: for each statistic, for each endpoint, and for all. Pure."""

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

MOST_RUNS = 60
"""Of one side. The exact distribution of more takes minutes, and tells no more than these do."""

SMALLER_IS_WORSE = frozenset({"throughput_per_s", KNEE})

Key = tuple[str, Statistic]


class CompareError(UserError):
    """Runs that cannot be compared. The message is a sentence."""


def compare(
    baseline: Sequence[Measures], candidate: Sequence[Measures], settings: CompareSettings | None = None
) -> Result:
    """Say whether the candidate's runs are slower than the baseline's, or fail more.

    For each endpoint and each statistic that is judged:

    - ``regression`` and ``improvement``: the exact Mann-Whitney test, corrected by Holm for all that is judged and
      could be found, is significant at ``alpha``, and the estimated shift is as large as matters;
    - ``no difference``: it is neither, and the interval of the shift has nothing in it that matters;
    - ``not enough runs to tell``: all else. That no difference was found is not yet that there is none.

    An endpoint is a regression when one of its statistics is; else what cannot be told and may be a regression comes
    before an improvement, then what cannot be told and is no regression, then no difference. So it is with all of
    them.

    Raises CompareError for runs that are no two groups of one thing: of two topologies or scenarios, the same run
    twice, or none that can be used on one side.
    """
    settings = settings or CompareSettings()
    notes = [run.spoilt for run in (*baseline, *candidate) if run.spoilt]
    before, now = ([run for run in runs if not run.spoilt] for runs in (baseline, candidate))
    _refuse(before, now, notes)
    pairs = _pairs(before, now)
    notes += [*_set_up_otherwise(before, now), *_untold(pairs, settings)]
    shared, family = _corrected(pairs, settings)
    found = [_endpoint(endpoint, pairs, shared, family, settings) for endpoint in _names(before, now)]
    endpoints = tuple(sorted(found, key=lambda each: _place(each.comparisons)))  # the worst first
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


def _refuse(before: Sequence[Measures], now: Sequence[Measures], spoilt: Sequence[str]) -> None:
    for side, runs in (("baseline", before), ("candidate", now)):
        if not runs:
            raise CompareError(" ".join([f"The {side} has no run that can be used.", *spoilt]))
        if len(runs) > MOST_RUNS:
            raise CompareError(f"The {side} has {len(runs)} runs; {MOST_RUNS} are the most that can be compared.")
    first, *others = (*before, *now)
    names = [run.name for run in (first, *others)]
    for name in names:
        if names.count(name) > 1:
            raise CompareError(f"{name} is there more than once: a run is one witness.")
    for run in others:
        if run.scenario != first.scenario:
            raise CompareError(f"{first.name} is of the scenario {first.scenario}, {run.name} is of {run.scenario}.")
        for key in sorted(first.topology.keys() | run.topology.keys()):
            ours, theirs = first.topology.get(key), run.topology.get(key)
            if ours != theirs:
                raise CompareError(
                    f"{first.name} and {run.name} are of different topologies: {key} is {ours} in the one and {theirs} "
                    "in the other."
                )


def _set_up_otherwise(before: Sequence[Measures], now: Sequence[Measures]) -> Iterator[str]:
    """What is set up otherwise: it may be what is tried, so it is told and not refused."""
    for key in sorted({key for run in (*before, *now) for key in run.facts}):
        sides = [sorted({str(run.facts.get(key)) for run in runs}) for runs in (before, now)]
        if sides[0] != sides[1] or len(sides[0]) > 1:
            ours, theirs = (" and ".join(side) for side in sides)
            yield f"Set up otherwise: {key} is {ours} in the baseline and {theirs} in the candidate."


# --- numbers


@dataclass(frozen=True)
class Sides:
    """One statistic of one endpoint: the values of the runs that have it, by the run's name."""

    before: Mapping[str, float]
    now: Mapping[str, float]
    runs: tuple[int, int]

    @property
    def values(self) -> tuple[list[float], list[float]]:
        """Of both sides."""
        return list(self.before.values()), list(self.now.values())

    @property
    def told(self) -> bool:
        """Whether each run of the baseline has it: what is too rare for some would be so for some of any more runs."""
        return len(self.before) == self.runs[0]

    @property
    def differ(self) -> bool:
        """Whether both sides have it, and not all runs the same."""
        return bool(self.before and self.now) and len({*self.before.values(), *self.now.values()}) > 1


def _names(before: Sequence[Measures], now: Sequence[Measures]) -> list[str]:
    """All endpoints. ``all`` is left out where there is one endpoint only: it would be the same under two names."""
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
    # most loads have no knee, and none has it by endpoint
    return {key: sides for key, sides in pairs.items() if key[1] != KNEE or sides.before or sides.now}


def _values(runs: Sequence[Measures], endpoint: str, statistic: str) -> dict[str, float]:
    found = ((run.name, run.endpoints.get(endpoint, {}).get(statistic)) for run in runs)
    return {name: value for name, value in found if value is not None}


def _corrected(pairs: Mapping[Key, Sides], settings: CompareSettings) -> tuple[dict[Key, float], int]:
    """The corrected p of all that is judged, and for how many it is.

    What is the same in all runs, such as no error at all, or is in the runs of one side only, could not be found to
    differ whatever the order of its values: it has a p of 1, and the others are not corrected for it.
    """
    judged = {key: sides for key, sides in pairs.items() if key[1] in settings.judged and sides.told}
    attainable = {key: rank_tests.attainable_p(*sides.values) for key, sides in judged.items() if sides.differ}
    family = rank_tests.testable(attainable, settings.alpha) or attainable.keys()
    found = rank_tests.holm({key: rank_tests.rank_sum(*judged[key].values).p for key in family})
    return {key: found.get(key, 1.0) for key in judged}, max(len(family), 1)


def _untold(pairs: Mapping[Key, Sides], settings: CompareSettings) -> Iterator[str]:
    """What should be judged and cannot be, by however many runs of this length."""
    for statistic in settings.judged:
        rare = [endpoint for (endpoint, its), sides in pairs.items() if its == statistic and not sides.told]
        if rare:
            yield (
                f"The {NAMES[statistic]} is not judged of {', '.join(rare)}: not each run of the baseline has enough "
                "answers. Let them run longer."
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
    why = next((one.sentence for one in each if one.decision is decision), f"{endpoint}: nothing of it can be judged.")
    return Endpoint(endpoint=endpoint, decision=decision, sentence=why, comparisons=each)


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
    # What could not have been found may not be said to be absent.
    findable = test.p_least * family <= alpha
    return Decision.NO_DIFFERENCE if findable and _nothing_matters(test) else Decision.NOT_ENOUGH


def _nothing_matters(test: Test) -> bool:
    if test.shift_low is None or test.shift_high is None:
        return False
    return max(abs(test.shift_low), abs(test.shift_high)) < test.tolerance or test.shift_low == test.shift_high == 0


def _needed(sides: Sides, test: Test | None, alpha: float, family: int) -> int:
    """About how many runs of each side tell: so that the test can find anything, and its interval is narrow enough.

    Half of the interval should be half of what matters: then it lies within it mostly, when nothing has changed.
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
"""What comes before what. The first of the two that cannot be told may be a regression, the second one is none."""


def _place(comparisons: Iterable[Comparison]) -> int:
    """Where in that order the worst of them is; where nothing is judged, a regression may be."""
    places = [
        3 if one.decision is Decision.NOT_ENOUGH and not _may_be_worse(one) else ORDER.index(one.decision)
        for one in comparisons
        if one.decision is not None
    ]
    return min(places, default=1)


def _may_be_worse(one: Comparison) -> bool:
    """Whether the interval of the shift has a regression in it."""
    if one.test is None or one.test.shift_low is None or one.test.shift_high is None:
        return True
    worst = -one.test.shift_low if one.statistic in SMALLER_IS_WORSE else one.test.shift_high
    return worst >= one.test.tolerance


# --- sentences

NAMES = {
    "p50_ms": "median latency",
    "p90_ms": "90th percentile of latency",
    "p99_ms": "99th percentile of latency",
    "error_share": "share of errors",
    "throughput_per_s": "throughput",
    KNEE: "knee",
}


def _sentence(key: Key, sides: Sides, test: Test | None, decision: Decision | None, needed: int | None) -> str:
    endpoint, statistic = key
    what = f"{endpoint}, {NAMES[statistic]}"
    missing = "".join(f" {text}" for text in _missing(sides))
    if test is None:
        return f"{what}: there is nothing to compare.{missing}"
    unit = "per_s" if statistic.endswith("_per_s") else statistic.rpartition("_")[2]
    before, now = (median(values) for values in sides.values)
    ends = (
        f"{_number(test.shift_low, unit)} to {_number(test.shift_high, unit)}"
        if test.shift_low is not None and test.shift_high is not None
        else "no interval from so few runs"
    )
    tells = f"; it takes about {needed} runs on each side to tell" if needed else ""
    head = f"{what}: {decision}; " if decision else f"{what}: "
    return (
        f"{head}from {_number(before, unit, '')} to {_number(now, unit, '')}, a shift of "
        f"{_number(test.shift, unit)} ({ends}), p {test.p_corrected:.2g}{tells}.{missing}"
    )


def _missing(sides: Sides) -> Iterator[str]:
    for side, values, runs in (("baseline", sides.before, sides.runs[0]), ("candidate", sides.now, sides.runs[1])):
        if len(values) < runs:
            yield f"{runs - len(values)} of the {runs} runs of the {side} do not tell: too few such requests, or none."


def _number(value: float, unit: str, sign: str = "+") -> str:
    if unit == "share":
        return f"{100 * value:{sign}.2f} %"
    return f"{value:{sign}.2f} ms" if unit == "ms" else f"{value:{sign}.2f} a second"


def _summary(decision: Decision, endpoints: Sequence[Endpoint], before: int, now: int) -> str:
    """The decision, and what it rests on."""
    runs = f"{now} runs against {before}"
    if decision is Decision.NO_DIFFERENCE:
        return f"No difference that matters, {runs}."
    found = [one for each in endpoints for one in each.comparisons if one.decision is decision]
    named = list(dict.fromkeys(one.endpoint for one in found if one.endpoint != ALL)) or [ALL]
    if decision is Decision.NOT_ENOUGH:
        needed = max((one.runs_needed or 0 for one in found), default=0)
        wanted = f": about {needed} on each side would" if needed else ""
        return f"Not enough runs to tell of {', '.join(named)}, {runs}{wanted}."
    first = next(one for one in found if one.endpoint == named[0])
    return f"{decision.capitalize()} of {', '.join(named)}, {runs}. {first.sentence}"
