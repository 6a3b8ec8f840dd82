"""The shape of the tree: short files, telling names, a docstring first, tests that mirror the sources."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = ("agentspace", "bridge", "gateway", "standalone")
LONGEST = 400
VAGUE = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "misc",
    "shared",
    "base",
    "core",
    "manager",
    "managers",
    "types",
}
# A module whose functions have fewer statements than this needs no test file of its own; others' tests run it.
SUBSTANCE = 12


def python_files(*folders: str) -> list[Path]:
    """Hand-written files under the folders, relative to the root."""
    found = [path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if path.parts[:2] != ("agentspace", "v1"))


SOURCES = python_files(*ROOTS)
TESTS = python_files("tests")
WRITTEN = [*SOURCES, *TESTS, *python_files("examples", "benchmarks")]
# Migrations are run by Alembic, one after the other, and tested so; __main__ is run by the journeys.
MODULES = [
    path for path in SOURCES if path.name not in ("__init__.py", "__main__.py") and "migrations" not in path.parts
]
# A schema is declared by statements.
DECLARATIONS = {Path("gateway/storage/tables.py")}
MIRRORS = [path for path in TESTS if path.parts[1] in ROOTS and path.name.startswith("test_")]


def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def substance(module: ast.Module) -> int:
    """How many statements the module's functions have, docstrings and nested definitions not counted."""
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    within = {node for function in functions for node in ast.walk(function) if isinstance(node, ast.stmt)}
    said = {node for node in within if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    return len(within - said - set(functions))


@pytest.mark.parametrize("path", WRITTEN, ids=str)
def test_file_is_short_named_and_introduced(path: Path) -> None:
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path} has {lines} lines; cut it along its parts"
    assert not VAGUE.intersection({path.stem.strip("_"), *path.parts[:-1]}), f"{path} does not say what is in it"
    # A test file's name says what it tests.
    assert path.name.startswith("test_") or ast.get_docstring(tree(path)), f"{path} does not say what it is"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=str)
def test_package_file_holds_a_docstring_only(path: Path) -> None:
    assert len(tree(path).body) == 1, f"{path} holds more than its docstring"


@pytest.mark.parametrize("path", [path for path in MODULES if path not in DECLARATIONS], ids=str)
def test_module_keeps_no_state(path: Path) -> None:
    for node in tree(path).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring, of the module or of the constant above it
        assert not isinstance(node, ast.AugAssign | ast.While | ast.With | ast.Expr | ast.Try), (
            f"{path}:{node.lineno} runs on import"
        )
    found = [node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.Global)]
    assert not found, f"{path}:{found} changes a module's variable"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_module_has_its_test(path: Path) -> None:
    if substance(tree(path)) < SUBSTANCE:
        return
    names = {f"test_{path.stem}.py", f"test_{path.parent.name}_{path.stem}.py"}
    here = ROOT / "tests" / path.parent
    assert any((here / name).exists() for name in names), f"{path} has no {here.relative_to(ROOT)}/test_{path.stem}.py"


@pytest.mark.parametrize("path", MIRRORS, ids=str)
def test_test_file_mirrors_a_source(path: Path) -> None:
    source = Path(*path.parts[1:-1])
    stem = path.stem.removeprefix("test_")
    answers = [source / f"{stem}.py", source / stem, source / f"{stem.removeprefix(source.name + '_')}.py"]
    mine = [module.stem for module in MODULES if module.parent == source]
    # A long subject may be split: test_protocol_errors.py still answers for protocol.py.
    assert any((ROOT / answer).exists() for answer in answers) or any(stem.startswith(name + "_") for name in mine), (
        f"{path} tests nothing of that name"
    )


@pytest.mark.parametrize("path", [path for path in TESTS if path.name.startswith("test_")], ids=str)
def test_tests_do_not_sleep(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "sleep":
            continue
        yields = len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
        assert yields, f"{path}:{node.lineno} sleeps; wait for an event under asyncio.timeout instead"
