"""What importing costs: the command line and the servers load no library before they need it."""

import json
import subprocess
import sys

import pytest

# Loading these takes most of a second or more.
HEAVY = ("anthropic", "sqlalchemy", "alembic", "grpc", "aiohttp", "tiktoken")


def loaded(module: str) -> set[str]:
    """Which heavy libraries a fresh interpreter has loaded after importing the module."""
    code = f"import {module}, sys, json; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_command_line_loads_none() -> None:
    assert loaded("agentspace.cli.main") == set()


@pytest.mark.parametrize("module", ["gateway.domain.error", "gateway.usecases.ports", "bridge.protocol"])
def test_pure_modules_load_none(module: str) -> None:
    assert loaded(module) == set()


def test_gateway_starts_without_the_provider_library() -> None:
    assert not loaded("gateway.app") & {"anthropic", "aiohttp"}
