"""The faults whose harness is killed, a group at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Cases = Mapping[str, Mapping[str, Any]]

TOGETHER: tuple[Cases, ...] = (
    {
        "dns.servfail": {},
        "heartbeat.drop": {"sender": "lb-1", "paths": ["heartbeat"]},
        "network.delay": {"cable": "web-4.eth0"},
        "node.slow": {"node": "web-5"},
        "process.stop": {"node": "web-6", "service": "gmond"},
    },
    {
        "data.database-locked": {},
        "network.cut": {"cable": "web-4.eth0"},
        "node.disk-full": {"node": "web-1"},
        "process.restart-loop": {"node": "web-6", "service": "apache"},
        "real-server.error": {"node": "web-5"},
    },
    {
        "cluster.one-path-cut": {},
        "data.database-out-of-connections": {},
        "data.replication-source-empty": {},
        "node.freeze": {"node": "web-4"},
        "process.hang": {"node": "web-5", "service": "apache"},
    },
    {
        "data.nfs-other-fsid": {},
        "dns.one-address": {},
        "node.disk-errors": {"node": "db"},
        "node.out-of-memory": {"node": "web-6"},
        "node.panic": {"node": "web-4"},
        "real-server.refuse": {"node": "web-5"},
    },
)
"""At least one of each family. Targets are nodes whose loss moves no virtual IP address."""
