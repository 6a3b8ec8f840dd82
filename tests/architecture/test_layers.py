"""The guards themselves: in a copy of the tree a violation of each rule is planted, and each is caught by name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ROOTS = ("agentspace", "bridge", "gateway", "standalone")

# File in the copy -> line added to it. A missing file is made.
IMPORTS = {
    "bridge/protocol.py": "import gateway.domain.error",
    "bridge/closing.py": "import asyncio",
    "bridge/frames.py": "import grpc",
    "bridge/odds.py": "",
    "agentspace/client/errors.py": "import bridge.frames",
    "agentspace/client/position.py": "import agentspace.cli.main",
    "agentspace/cli/render.py": "import sqlalchemy",
    "agentspace/cli/options.py": "import gateway.domain.ids",
    "gateway/odds.py": "",
    "gateway/domain/error.py": "import grpc",
    "gateway/domain/ids.py": "import gateway.usecases.ports",
    "gateway/domain/left.py": "import gateway.domain.right",
    "gateway/domain/right.py": "import gateway.domain.left",
    "gateway/usecases/ports.py": "import gateway.storage.planted",
    "gateway/usecases/planted.py": "import anthropic",
    "gateway/storage/planted.py": "import gateway.providers.planted",
    "gateway/providers/planted.py": "import agentspace.client.errors",
    "gateway/vault/planted.py": "import standalone.link",
    "standalone/odds.py": "",
}
CAUGHT = [
    ("The roots meet only in the contract", "bridge.protocol -> gateway.domain.error"),
    ("The roots meet only in the contract", "agentspace.client.errors -> bridge.frames"),
    ("The command line knows the client alone", "agentspace.cli.render -> sqlalchemy"),
    ("The command line knows the client alone", "agentspace.cli.options -> gateway.domain.ids"),
    ("What others import stands on nothing of ours", "agentspace.client.position -> agentspace.cli.main"),
    ("The servers need no client", "gateway.providers.planted -> agentspace.client.errors"),
    ("The servers need no client", "gateway.vault.planted -> standalone.link"),
    ("Only the standalone server knows both", "standalone.odds"),
    ("The gateway's arrows point one way", "gateway.domain.ids -> gateway.usecases.ports"),
    ("The gateway's arrows point one way", "gateway.usecases.ports -> gateway.storage.planted"),
    ("The gateway's arrows point one way", "gateway.storage.planted -> gateway.providers.planted"),
    ("The gateway's arrows point one way", "gateway.odds"),
    ("The domain and the use cases touch no network, database or provider", "gateway.domain.error -> grpc"),
    ("The domain and the use cases touch no network, database or provider", "gateway.usecases.planted -> anthropic"),
    ("The bridge's arrows point one way", "bridge.odds"),
    ("The bridge's protocol does no input or output", "bridge.closing -> asyncio"),
    ("The bridge's protocol does no input or output", "bridge.frames -> grpc"),
    ("The bridge makes its gRPC calls itself", "bridge.frames -> grpc"),
    ("No circles", "gateway.domain"),
]

# File in the copy -> its whole content, and what the shape test says of it.
SHAPES = {
    "gateway/domain/long.py": ('"""Long."""\n' + "A = 1\n" * 400, "cut it along its parts"),
    "gateway/domain/helpers.py": ('"""Vague."""\n', "does not say what is in it"),
    "bridge/silent.py": ("A = 1\n", "does not say what it is"),
    "bridge/global_state.py": ('"""State."""\n\n\ndef f():\n    global A\n    A = 1\n', "changes a module's variable"),
    "bridge/on_import.py": ('"""Runs."""\nprint()\n', "runs on import"),
    "gateway/planted/__init__.py": ('"""Package."""\nA = 1\n', "more than its docstring"),
    "gateway/domain/untested.py": (
        '"""Untested."""\n\n\ndef f():\n' + "    print()\n" * 20,
        "has no tests/gateway/domain",
    ),
    "tests/bridge/test_nothing.py": ('"""Orphan."""\n', "tests nothing of that name"),
    "tests/bridge/test_frames_sleep.py": ('"""Sleeps."""\nimport time\n\ntime.sleep(1)\n', "sleeps; wait for an event"),
}


def copied(folder: Path) -> Path:
    """The Python files, protos and rules of the tree, in the folder."""
    for name in (*ROOTS, "proto"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "static"))
    for name in (".importlinter", "pyproject.toml", "buf.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


def said(folder: Path, tool: str, *arguments: str, stdin: str = "") -> str:
    """What a tool that must fail says in the folder."""
    seen = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "400", "NO_COLOR": "1"}
    command = [str(BIN / tool), *arguments]
    done = subprocess.run(command, cwd=folder, env=seen, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode != 0, f"{tool} found nothing wrong"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the import rules say of the planted imports, by contract."""
    tree = copied(tmp_path_factory.mktemp("imports"))
    for name, line in IMPORTS.items():
        path = tree / name
        before = path.read_text(encoding="utf-8") if path.exists() else '"""Planted."""\n'
        path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    report = said(tree, "lint-imports", "--no-cache").split("Broken contracts", 1)[1]
    contracts = {contract for contract, _ in CAUGHT}
    starts = sorted((report.index(f"\n{contract}\n-"), contract) for contract in contracts)
    ends = [start for start, _ in starts[1:]] + [len(report)]
    return {contract: report[start:end] for (start, contract), end in zip(starts, ends, strict=True)}


@pytest.mark.parametrize(("contract", "violation"), CAUGHT)
def test_planted_import_is_caught(broken: dict[str, str], contract: str, violation: str) -> None:
    assert violation in broken[contract]


def test_every_contract_has_a_planted_violation() -> None:
    rules = (ROOT / ".importlinter").read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("name = ") for line in rules if line.startswith("name = ")} == {
        name for name, _ in CAUGHT
    }


def test_planted_shapes_are_caught(tmp_path: Path) -> None:
    tree = copied(tmp_path)
    (tree / "tests" / "architecture").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "architecture" / "test_shape.py", tree / "tests" / "architecture")
    for name, (content, _) in SHAPES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content, encoding="utf-8")
    report = said(tree, "pytest", "-q", "-p", "no:cacheprovider", "tests/architecture/test_shape.py")
    failures = [line for line in report.splitlines() if line.startswith("E  ")]
    for name, (_, complaint) in SHAPES.items():
        assert any(name in line and complaint in line for line in failures), f"{name}: {complaint}"


@pytest.mark.parametrize("call", ["os.environ", "os.getenv('A')", "time.time()", "datetime.datetime.now(datetime.UTC)"])
def test_planted_environment_and_clock_are_caught(call: str) -> None:
    source = f'"""Planted."""\n\nimport datetime\nimport os\nimport time\n\nPLANTED = {call}\n'
    assert "TID251" in said(ROOT, "ruff", "check", "--stdin-filename", "gateway/domain/planted.py", "-", stdin=source)


def test_planted_contract_fault_is_caught(tmp_path: Path) -> None:
    tree = copied(tmp_path)
    proto = tree / "proto" / "agentspace" / "v1" / "session.proto"
    proto.write_text(proto.read_text(encoding="utf-8") + "\nmessage planted {}\n", encoding="utf-8")
    report = said(tree, "buf", "lint")
    assert "PascalCase" in report
    assert "comment" in report
