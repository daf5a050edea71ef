"""The report of a run, and the page of a comparison: self-contained HTML files."""

from harness.report.render import render

__all__ = ["render"]
