"""Is one version of the cluster slower than another? Decides from the histories of repeated runs alone. Pure.

The sample is the run, not the request: all requests of a run share its machine and its caches, so a thousand of them
are not independent. A run has one number for each statistic of each endpoint, and the comparison uses these.

1. ``measure`` turns a run into numbers (measures.py);
2. ``compare`` compares a baseline with a candidate (decide.py) by exact tests (algorithms/rank_tests.py);
3. the answer is a ``Result`` (result.py).

release.py, which is not pure, makes and stores the runs.
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
