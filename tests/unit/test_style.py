"""The project's style rules, held by a test: sizes, names, file openings, documented operators."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("operators", "schemas", "backends", "infra", "streams", "tests")
FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 70
FORBIDDEN_NAMES = ("utils", "util", "common", "helpers", "helper", "manager", "misc")
# Every public operator says what goes in and out: a shape, and a unit or a range. A shape is a list
# of axes after a type (f32[T, 3]) or alone ([n, E], [...]), or the words for what has none.
SHAPE = re.compile(
    r"\w*\[(?:\.\.\.|[A-Za-z])[^\]]*\]|\b(?:shape|scalar|float|int|number|whether|last axis)\b",
    re.IGNORECASE,
)
# A range is an interval of numbers ([0, ½], 0 … 9999), a comparison or the sum that is kept; a unit is
# what is counted or measured, also the ulp of a plain function.
UNIT = re.compile(
    r"[\[(][−-]?[\d√½][^\])]*, [^\])]*[\])]|\d … \d|[≥≤<>] ?[−\w]"
    r"|\b(?:sums? to|nats|logits?|units?|ulp|how often|index|whether|floats in|roundings|all zero|bounds)\b",
    re.IGNORECASE,
)


def python_files() -> list[Path]:
    """Every Python file of the project."""
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_file_follows_the_rules(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= FILE_LINES_MAX, f"more than {FILE_LINES_MAX} lines"
    assert not {*path.stem.split("_"), *path.parent.parts} & set(FORBIDDEN_NAMES), (
        "a name that says nothing"
    )
    tree = ast.parse(source)
    if source.strip():
        assert ast.get_docstring(tree), "a file opens with what it is and why it exists"
    for function in functions(tree):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= FUNCTION_LINES_MAX, f"{function.name} has {length} lines"


def public_operators() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Public functions of operators/, kernels' inner parts excepted."""
    found: list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]] = []
    for path in sorted((ROOT / "operators").glob("*.py")):
        if path.stem.startswith("kernels"):
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        public = [n for n in body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
        found += [(f"{path.stem}.{node.name}", node) for node in public]
    return found


@pytest.mark.parametrize(
    ("name", "node"), public_operators(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_public_operator_is_documented(name: str, node: ast.FunctionDef) -> None:
    text = ast.get_docstring(node) or ""
    assert text, f"{name} has no docstring"
    said = text.partition(">>>")[0]  # an example shows a value, it does not say what is allowed
    assert SHAPE.search(said), f"{name} does not say a shape or that it takes a single value"
    assert UNIT.search(said), f"{name} does not say a unit or a range"


@pytest.mark.parametrize(
    ("text", "shape", "unit"),
    [
        ("Points are put into print.", False, False),
        ("f32[..., E] in [0, 1]", True, True),
        ("routes [n, E]", True, False),
        ("C in [0, 1]", False, True),
        ("a float, 0 … 1", True, True),
        ("‖w‖ over the last axis", True, False),
        ("entropy in nats", False, True),
    ],
)
def test_the_rule_sees_shapes_and_units_and_no_parts_of_words(
    text: str, shape: bool, unit: bool
) -> None:
    assert (bool(SHAPE.search(text)), bool(UNIT.search(text))) == (shape, unit)


def test_only_the_app_imports_faust() -> None:
    for path in python_files():
        relative = path.relative_to(ROOT).as_posix()
        if relative.startswith(("streams/app/", "tests/bench/contenders/")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("faust", "mode") for name in names), relative
