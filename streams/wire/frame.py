"""Kafka's framing of records, compiled: lengths, keys, values and headers of a block end to end.

The format is that of record batches of magic 2 (Kafka's protocol guide, "Record"): zig-zag varints as in
Avro, attributes and the timestamp's distance from the batch's 0. `app/record_batch.py` puts the batch's
head before it; aiokafka's own builder is the oracle (tests/property/test_record_batch.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from routekeel.operators.compilation import array_in, array_out
from routekeel.streams.wire.primitives import WIRE, copy, long_size, write_long
from routekeel.streams.wire.vectors import copy_block


def _frame(source_digest: int) -> Any:
    def run(
        keys: Any, key_spans: Any, data: Any, spans: Any, headers: Any, header_ends: Any,
        start: Any, end: Any, delta: Any, out: Any, here: Any,
    ) -> Any:  # fmt: skip
        """Records `start` to `end` from out[here] on; `delta` is the first one's offset in its batch."""
        if source_digest != 0:
            for i in range(start, end):
                offset = delta + i - start
                key, value = key_spans[i, 0], spans[i, 0]
                key_size, size = np.int64(-1), np.int64(-1)
                length = 2 + long_size(offset)
                if key >= 0:
                    key_size = key_spans[i, 1] - key
                    length += key_size
                if value >= 0:
                    size = spans[i, 1] - value
                    length += size
                length += long_size(key_size) + long_size(size)
                header = np.int64(0)
                if i > 0:
                    header = header_ends[i - 1]
                header_end = header_ends[i]
                length += header_end - header
                if header_end == header:
                    length += 1
                here = write_long(out, here, length)
                out[here] = np.uint8(0)
                out[here + 1] = np.uint8(0)
                here = write_long(out, here + 2, offset)
                here = write_long(out, here, key_size)
                if key_size > 0:
                    here = copy(keys, key, key + key_size, out, here)
                here = write_long(out, here, size)
                if size > 0:
                    copy_block(data, value, size, out, here)
                    here += size
                if header_end == header:
                    out[here] = np.uint8(0)
                    here += 1
                else:
                    here = copy(headers, header, header_end, out, here)
        return here

    return run


_BUF, _I64S, _I64T = array_in(types.uint8, 1), array_in(types.int64, 1), array_in(types.int64, 2)
frame_records = WIRE.entry(
    types.int64(
        _BUF, _I64T,  # keys
        _BUF, _I64T,  # values
        _BUF, _I64S,  # headers with their count, encoded; nothing where a record has none
        types.int64, types.int64, types.int64,  # start, end, delta
        array_out(types.uint8, 1), types.int64,  # out, here
    ),
    _frame,
)  # fmt: skip
