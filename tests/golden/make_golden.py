"""Writes the golden files of every record's newest version: `python -m tests.golden.make_golden`.

Bytes by fastavro, not by our encoder, so that the golden files are an independent witness. A file
of a released version is never written again.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import fastavro

from routekeel.schemas.avro import schema
from routekeel.schemas.fields import Record
from routekeel.schemas.records import RECORDS
from routekeel.schemas.render import RELEASED
from tests.golden.examples import example, to_json

HERE = Path(__file__).parent
CASES = ("full", "sparse")


def stem(record: Record, case: str) -> str:
    """File name without suffix, e.g. `weights.v1.full`."""
    return f"{record.file_name.removesuffix('.avsc')}.{case}"


def main() -> None:
    """Write what is not released."""
    for record in RECORDS:
        if record.file_name in RELEASED:
            continue
        for case in CASES:
            value = example(record, sparse=case == "sparse")
            body = io.BytesIO()
            fastavro.schemaless_writer(body, fastavro.parse_schema(schema(record)), value)
            lines = body.getvalue().hex(" ", 40).replace(" ", "\n")
            (HERE / f"{stem(record, case)}.hex").write_text(lines + "\n", encoding="utf-8")
            text = json.dumps(to_json(value), indent=1, ensure_ascii=False)
            (HERE / f"{stem(record, case)}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
