"""Faults of the directors as a pair."""
