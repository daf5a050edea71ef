"""The history of a run: its ops (``ops.py``), and what can be read from them (all other files here). Pure."""

from harness.history.ops import History, HistoryError, Op, Pair, Recorder, load

__all__ = ["History", "HistoryError", "Op", "Pair", "Recorder", "load"]
