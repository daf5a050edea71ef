"""Algorithms on plain arrays. They know no history, no lab and no check."""
