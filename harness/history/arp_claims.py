"""Which node claimed a virtual IP in ARP, and when. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from harness.history import History, Op


@dataclass(frozen=True)
class Claim:
    """An ARP packet whose sender says that it has the VIP. ``node`` is a MAC address when no node has that one."""

    op: Op
    vip: str
    node: str
    gratuitous: bool


def claims(history: History, start: int, until: int) -> dict[str, list[Claim]]:
    """Each VIP -> the ARP packets with it as their sender, by time. Requests and replies alike fill caches."""
    found: dict[str, list[Claim]] = {vip: [] for vip in history.cluster.vips}
    for op in history.by_time().seen("arp"):
        vip = op.get("ip")
        if vip in found and start <= op.time <= until:
            mac = str(op["mac"]).lower()
            node = history.cluster.macs.get(mac) or op.get("node") or mac
            found[vip].append(Claim(op, vip, node, bool(op.get("gratuitous"))))
    return found
