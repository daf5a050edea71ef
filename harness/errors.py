"""What every error has in common that a user sees."""

from __future__ import annotations


class UserError(Exception):
    """Something that cannot be done, told to a person: one sentence, and in ``next_step`` what they can do about it."""

    def __init__(self, sentence: str, next_step: str = "") -> None:
        super().__init__(sentence)
        self.next_step = next_step
