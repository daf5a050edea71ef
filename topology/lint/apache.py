"""Apache's configuration: real servers behind one virtual service should answer alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from topology.lint.model import ClusterFiles, Config, Hit, cited, others

PATHS = ("/etc/apache2/*",)


def parse(text: str) -> str:
    """The text itself: Apache reads it."""
    return text


def files_differ(configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: what a client gets depends on the real server."""
    nodes = cluster.real_servers()
    for path in sorted({config.path for config in configs if config.source}):
        same = [config for config in configs if config.path == path]
        lacking = sorted(set(nodes) - {config.node for config in same})
        if len({_alike(config) for config in same}) > 1 or lacking:
            here = cited(same)
            without = f", and is not on {', '.join(lacking)}" if lacking else ""
            yield Hit(
                here,
                0,
                f"{path} differs between the real servers{without}: what a client gets depends on the scheduler. Use "
                "the same file on all.",
                others(here, same),
            )


def _alike(config: Config) -> str:
    """The text without the node's own name and addresses, which must differ."""
    return re.sub(rf"\b({re.escape(config.node)}|[0-9]+(\.[0-9]+){{3}})\b", "...", config.text)
