"""The phases of an outage that a takeover causes."""

from __future__ import annotations

TAKEOVER_PHASES = ("detection", "takeover", "announcement", "answer")
"""In the order in which they follow one another: the survivor notices the silence, takes the address, announces it, and
the first probe is answered."""
