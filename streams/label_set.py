"""A bound on the values that one metric's label may take, for labels whose values code elsewhere makes."""

from __future__ import annotations

LABEL_VALUES_MAX = 64
OTHER = "other"


class LabelSet:
    """The first `limit` different values as they are, every later one as 'other'.

    >>> bounded = LabelSet(2)
    >>> [bounded(value) for value in ("a", "b", "c", "a")]
    ['a', 'b', 'other', 'a']
    """

    def __init__(self, limit: int = LABEL_VALUES_MAX) -> None:
        self._limit = limit
        self._values: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value to use as the label."""
        if value not in self._values:
            if len(self._values) >= self._limit:
                return OTHER
            self._values.add(value)
        return value
