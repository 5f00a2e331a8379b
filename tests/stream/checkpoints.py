"""A checkpoint written down plainly, from what its sessions are."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from routekeel.streams.topology.changelog import VERSION_HEADER, ChangelogRecord
from routekeel.streams.topology.version import Version
from routekeel.streams.topology.watermark import WATERMARK_KEY, Watermark


def checkpoint_records(
    changes: Mapping[bytes, bytes | None], evicted_at: Mapping[bytes, Version], watermark: Watermark
) -> list[ChangelogRecord]:
    """Sessions and tombstones, which have their version in a header, then the watermark."""
    records = [
        ChangelogRecord(
            key,
            value,
            [(VERSION_HEADER, struct.pack("<Iq", *evicted_at[key]))] if value is None else None,
        )
        for key, value in changes.items()
    ]
    return [*records, ChangelogRecord(WATERMARK_KEY, watermark.encode(), None)]
