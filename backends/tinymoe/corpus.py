"""Training text from what is on any machine: Python's own source, licences, and generated text.

Nothing is downloaded. Train and held-out never share a document: files are split by the hash of
their path, licences by family, generated items by the hash of the item itself; see `split_of`.
"""

from __future__ import annotations

import hashlib
import json
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from routekeel.backends.tinymoe.sentences import NAMES, PLACES, THINGS, passage
from routekeel.backends.tinymoe.vocabulary import END_OF_TEXT_ID

SOURCES = ("code", "licences", "arithmetic", "json", "sentences")
# Share of training windows. Sentences repeat the same facts by design, so the headline figure on
# held-out text leaves them out (see `measure.py`).
WEIGHTS = {"code": 0.42, "licences": 0.08, "arithmetic": 0.08, "json": 0.10, "sentences": 0.32}
HEADLINE_SOURCES = ("code", "licences", "arithmetic", "json")

LICENCES_FOLDER = Path("/usr/share/common-licenses")
# Whole families are held out: the GPL's versions share paragraphs with each other, these with none.
LICENCES_HELD_OUT = frozenset({"Artistic", "CC0-1.0"})
# Codec tables are near-copies of each other: held out, they would flatter the figure.
CODE_FOLDERS_SKIPPED = frozenset(
    {"test", "tests", "site-packages", "dist-packages", "idlelib", "encodings"}
)
CODE_FILE_BYTES_MAX = 400_000
HELD_OUT_SHARE = 0.05
GENERATED_BYTES = {"arithmetic": 1_600_000, "json": 2_000_000, "sentences": 4_000_000}

Tokens = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Corpus:
    """Tokens per source, documents separated by END_OF_TEXT_ID; `digest` is of all of them."""

    train: dict[str, Tokens]
    held_out: dict[str, Tokens]
    digest: str
    shared_line_share: dict[str, float]


def split_of(key: str) -> str:
    """'held_out' for a fixed 5% of keys, 'train' for the rest; the same on every machine."""
    draw = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "held_out" if draw < HELD_OUT_SHARE else "train"


def code_documents() -> Iterator[tuple[str, bytes]]:
    """(split, text) of each of the standard library's modules; copies of a file count once."""
    root = Path(sysconfig.get_path("stdlib"))
    seen: set[bytes] = set()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if CODE_FOLDERS_SKIPPED.intersection(relative.parts):
            continue
        text = path.read_bytes()
        digest = hashlib.sha256(text).digest()
        if not 0 < len(text) <= CODE_FILE_BYTES_MAX or digest in seen:
            continue
        seen.add(digest)
        yield split_of(relative.as_posix()), text


def licence_documents() -> Iterator[tuple[str, bytes]]:
    """(split, text) of each licence of the system's licence folder; none where there is none."""
    if not LICENCES_FOLDER.is_dir():
        return
    seen: set[bytes] = set()
    for path in sorted(LICENCES_FOLDER.iterdir()):
        text = path.read_bytes()
        if text not in seen:
            seen.add(text)
            yield ("held_out" if path.name in LICENCES_HELD_OUT else "train"), text


def arithmetic_line(rng: random.Random) -> tuple[str, str]:
    """(key, line) of a sum, difference or product; the key is the question without its answer."""
    operator = rng.choice("++--*")
    limit = 13 if operator == "*" else rng.choice((10, 100, 1000))
    a, b = rng.randrange(limit), rng.randrange(limit)
    if operator == "-":
        a, b = max(a, b), min(a, b)
    answer = {"+": a + b, "-": a - b, "*": a * b}[operator]
    return f"{a}{operator}{b}", f"{a} {operator} {b} = {answer}"


def json_record(rng: random.Random) -> str:
    """One small JSON object in one of four shapes, with values drawn at random."""
    name, thing, place = rng.choice(NAMES), rng.choice(THINGS), rng.choice(PLACES)
    shapes: tuple[dict[str, object], ...] = (
        {"id": rng.randrange(10_000), "name": name, "active": rng.random() < 0.5},
        {"item": thing, "price": rng.randrange(100, 9999) / 100, "stock": rng.randrange(200)},
        {"event": "visit", "user": {"name": name, "age": rng.randrange(18, 90)}, "place": place},
        {"tags": sorted(rng.sample(THINGS, 3)), "count": rng.randrange(50), "owner": name},
    )
    indent = 2 if rng.random() < 0.3 else None
    return json.dumps(rng.choice(shapes), indent=indent)


def generated_documents(source: str, seed: int) -> Iterator[tuple[str, bytes]]:
    """(split, text) of generated items; identical items fall on the same side by their hash."""
    rng = random.Random(f"{source}/{seed}")
    lines: dict[str, list[str]] = {"train": [], "held_out": []}
    made = 0
    while made < GENERATED_BYTES[source]:
        if source == "sentences":
            text = passage(rng)
            made += len(text)
            # A fact that stands alone is never held out: it would be a fact never learnt.
            yield (split_of(text) if text.count(".") > 1 else "train"), text.encode()
            continue
        key, line = arithmetic_line(rng) if source == "arithmetic" else ("", json_record(rng))
        split = split_of(key or line)
        made += len(line) + 1
        lines[split].append(line)
        if len(lines[split]) == 8:  # several to a document, so that the form is learnt in context
            yield split, ("\n".join(lines[split]) + "\n").encode()
            lines[split] = []


def documents(source: str, seed: int) -> Iterator[tuple[str, bytes]]:
    """(split, text) of every document of `source`."""
    if source == "code":
        return code_documents()
    if source == "licences":
        return licence_documents()
    return generated_documents(source, seed)


def shared_lines(train: list[bytes], held_out: list[bytes]) -> float:
    """Share of held-out lines of 40 bytes or more that training contains too, word for word."""
    known = {
        line.strip() for text in train for line in text.split(b"\n") if len(line.strip()) >= 40
    }
    lines = [line.strip() for text in held_out for line in text.split(b"\n")]
    lines = [line for line in lines if len(line) >= 40]
    return sum(line in known for line in lines) / max(1, len(lines))


def tokens_of(texts: list[bytes], rng: np.random.Generator) -> Tokens:
    """The documents in a random order, each followed by the separator."""
    parts: list[Tokens] = []
    for index in rng.permutation(len(texts)):
        parts.append(np.frombuffer(texts[index], dtype=np.uint8).astype(np.uint16))
        parts.append(np.array([END_OF_TEXT_ID], dtype=np.uint16))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint16)


def build(seed: int) -> Corpus:
    """Read and generate everything. A source with no documents is left out, not invented."""
    rng = np.random.default_rng(seed)
    digest = hashlib.sha256()
    train: dict[str, Tokens] = {}
    held_out: dict[str, Tokens] = {}
    shared: dict[str, float] = {}
    for source in SOURCES:
        texts: dict[str, list[bytes]] = {"train": [], "held_out": []}
        for split, text in documents(source, seed):
            texts[split].append(text)
        if not texts["train"]:
            continue
        train[source] = tokens_of(texts["train"], rng)
        held_out[source] = tokens_of(texts["held_out"], rng)
        shared[source] = shared_lines(texts["train"], texts["held_out"])
        digest.update(train[source].tobytes() + held_out[source].tobytes())
    return Corpus(train, held_out, digest.hexdigest(), shared)


def window_batch(
    corpus: Corpus, seed: int, step: int, batch: int, length: int
) -> npt.NDArray[np.int64]:
    """Training windows [batch, length + 1] of `step`.

    A pure function of (seed, step): a resumed run sees the windows that it would have seen.
    """
    rng = np.random.default_rng([seed, step])
    names = [name for name in SOURCES if name in corpus.train]
    weights = np.array([WEIGHTS[name] for name in names])
    rows = np.empty((batch, length + 1), dtype=np.int64)
    for row, pick in enumerate(rng.choice(len(names), size=batch, p=weights / weights.sum())):
        text = corpus.train[names[pick]]
        start = int(rng.integers(0, len(text) - length - 1))
        rows[row] = text[start : start + length + 1]
    return rows
