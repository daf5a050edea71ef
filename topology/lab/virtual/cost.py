"""What processor work costs, as options of a node's kernel. docs/virtual-time.md has their meaning. Pure."""

from __future__ import annotations

from topology.model import CostTable

__all__ = ["options"]


def options(cost: CostTable) -> list[str]:
    """The kernel's options for a cost model; none for hold-ups that never happen.

    >>> options(CostTable())
    ['tt-cost=2000,500000,1000000,20000,25']
    >>> options(CostTable(preset="struggling", jitter=2))
    ['tt-cost=2000,5000000,8000000,20000,100', 'tt-stall=100,1000,80000']
    """
    each = cost.effective
    work_ns = (each.syscall_ns, each.fork_us * 1000, each.exec_us * 1000, each.page_ns)
    numbers = ",".join(str(round(number)) for number in (*work_ns, 100 * each.spread * cost.jitter))
    found = [f"tt-cost={numbers}"]
    if each.hold_up_one_in and cost.jitter:
        one_in = max(1, round(each.hold_up_one_in / cost.jitter))
        shortest_us, longest_us = (round(1000 * bound_ms) for bound_ms in each.hold_up_ms)
        found.append(f"tt-stall={one_in},{shortest_us},{longest_us}")
    return found
