"""The base of all errors that a user sees."""

from __future__ import annotations


class UserError(Exception):
    """An error for a person: one sentence about what is wrong, and in ``next_step`` what to do about it."""

    def __init__(self, sentence: str, next_step: str = "") -> None:
        super().__init__(sentence)
        self.next_step = next_step
