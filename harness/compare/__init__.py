"""Is one version of the cluster slower than another? Runs against runs, decided from their histories alone. Pure.

The run is the unit: answers of one run share its machine, its caches and its luck, so a thousand of them are not a
thousand witnesses. Of each run there is one number for each statistic of each endpoint, and those are compared.

1. ``measure`` makes numbers of a run (measures.py);
2. ``compare`` puts those of a baseline against those of a candidate (decide.py), with exact tests (ranks.py);
3. what comes out is a ``Result`` (result.py).
"""

from harness.compare.decide import CompareError, compare
from harness.compare.measures import ALL, STATISTICS, Measures, measure
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

__all__ = [
    "ALL",
    "STATISTICS",
    "CompareError",
    "CompareSettings",
    "Comparison",
    "Decision",
    "Endpoint",
    "Group",
    "Measures",
    "Result",
    "Statistic",
    "Test",
    "Tolerance",
    "compare",
    "measure",
]
