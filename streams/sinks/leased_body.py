"""An insert's body that is sent to its end only under the lease.

A process may be stopped after it has looked at the lease and go on when others own its partitions.
The server does nothing with an insert whose body is not whole, so the look that counts is the one
before the last block.
"""

from __future__ import annotations

import io
from collections.abc import Callable


class LeaseLapsed(Exception):
    """The body was not sent to its end, so the insert was not done. No OSError: nobody may retry it."""


class LeasedBody(io.BytesIO):
    """Bytes to send. Reading raises LeaseLapsed where `may_send` says no; the end may always be read.

    >>> LeasedBody(b"rows", lambda: True).read()
    b'rows'
    """

    def __init__(self, data: bytes, may_send: Callable[[], bool]) -> None:
        super().__init__(data)
        self._may_send = may_send

    def read(self, size: int | None = -1) -> bytes:
        """The next block."""
        block = super().read(size)
        if block and not self._may_send():
            raise LeaseLapsed("the lease ran out while an insert was being sent; it was not done")
        return block
