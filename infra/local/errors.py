"""The stack's exceptions: each says what happened and what the person at the terminal can do.

One class with two texts is enough for a command line; callers never branch on the cause.
"""

from __future__ import annotations


class StackError(Exception):
    """The local stack could not do what was asked.

    Attributes:
        message: What happened, with the service's last log lines where there are any.
        hint: What to do about it, as one imperative sentence; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message
