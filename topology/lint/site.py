"""The site's files: replication copies the master's to the other real servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from topology.lint.model import ClusterFiles, Config, Hit

PATHS = ("/srv/site/*",)


def parse(text: str) -> str:
    """The text itself."""
    return text


def overwritten(configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: a file of the user's that is gone within seconds."""
    master = cluster.lab.master if cluster.lab else ""
    kept = {config.path: config.text for config in configs if config.node == master}
    for config in configs if master else ():
        if config.source and config.node != master and kept.get(config.path) != config.text:
            yield Hit(
                config,
                0,
                f"Replication overwrites this file: {master} is the master of the site, and its files replace those "
                f"of the other real servers. Put it on {master} too (topology: [web_data]).",
            )
