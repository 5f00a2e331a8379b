"""The errors a person meets: each says what happened and what to do, and carries an exit code.

Exit codes: 0 done, 1 the check found something or the work failed, 2 wrong use or configuration,
3 a service cannot be reached, 130 interrupted.
"""

from __future__ import annotations


class RoutekeelError(Exception):
    """Something went wrong that a person can act on.

    `message` says what happened, `hint` what to do about it; `exit_code` is what a command ends with.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigurationError(RoutekeelError):
    """A setting or an argument is wrong."""

    exit_code = 2


class ServiceUnavailable(RoutekeelError):
    """Kafka, the registry or ClickHouse cannot be reached."""

    exit_code = 3


class MissingExtra(ConfigurationError):
    """A part was used whose optional dependencies are not installed."""

    def __init__(self, part: str, extra: str) -> None:
        super().__init__(
            f"{part} needs packages that are not installed", f"pip install 'routekeel[{extra}]'"
        )
