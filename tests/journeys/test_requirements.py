"""Promises and tests agree: every promise has a test that says so, and every such mark names a promise."""

import ast
from collections import defaultdict
from pathlib import Path

from tests.journeys.requirements import PROMISES, UNPROVEN

TESTS = Path(__file__).parents[1]


def marks(source: str) -> list[str]:
    """The ids in a test file's @pytest.mark.requirement(...), on a test, a class or in pytestmark."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.requirement":
            assert len(node.args) == 1, f"line {node.lineno}: a requirement mark names one id"
            assert isinstance(node.args[0], ast.Constant), (
                f"line {node.lineno}: write the id out, so that it can be found"
            )
            found.append(str(node.args[0].value))
    return found


def proofs() -> dict[str, set[Path]]:
    """Which files prove which promise."""
    found: dict[str, set[Path]] = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        for promise in marks(path.read_text(encoding="utf-8")):
            found[promise].add(path.relative_to(TESTS))
    return found


def test_every_promise_is_proven() -> None:
    assert set(PROMISES) - set(proofs()) == UNPROVEN


def test_every_mark_names_a_promise() -> None:
    assert not {promise: files for promise, files in proofs().items() if promise not in PROMISES}


def test_promises_say_something() -> None:
    assert all(text.strip().endswith(".") for text in PROMISES.values())


def test_marks_are_found_on_tests_and_modules() -> None:
    source = (
        'import pytest\npytestmark = [pytest.mark.requirement("a")]\n@pytest.mark.requirement("b")\ndef test(): ...\n'
    )
    assert sorted(marks(source)) == ["a", "b"]
