"""What importing costs: the command line and the servers load no library before they need it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Loading these takes most of a second or more.
HEAVY = ("anthropic", "sqlalchemy", "alembic", "grpc", "aiohttp", "tiktoken")


ANSWER = """
import asyncio, gateway.app
from gateway.providers.anthropic import AnthropicProvider
from tests.fixtures.upstream import Upstream
from tests.gateway.providers.sinks import RecordingSink, request

async def main():
    async with Upstream(key="none").serve() as upstream:
        provider = AnthropicProvider(base_url=upstream.url, needs_key=False)
        await provider.generate(request("smollm2", key=None), RecordingSink())
        await provider.close()

asyncio.run(main())
"""


def loaded_by(code: str) -> set[str]:
    """Which libraries a fresh interpreter has loaded after running the code."""
    code = f"{code}\nimport sys, json; print(json.dumps([name for name in sys.modules if '.' not in name]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def loaded(module: str) -> set[str]:
    """Which heavy libraries importing the module loads."""
    return loaded_by(f"import {module}") & set(HEAVY)


def test_command_line_loads_none() -> None:
    assert loaded("agentspace.cli.main") == set()


@pytest.mark.parametrize("module", ["gateway.domain.error", "gateway.usecases.ports", "bridge.protocol"])
def test_pure_modules_load_none(module: str) -> None:
    assert loaded(module) == set()


def test_bridge_starts_without_a_library_of_grpc() -> None:
    assert loaded("bridge.__main__") == {"aiohttp"}


def test_gateway_starts_without_the_token_tables_and_a_client_of_http() -> None:
    assert not loaded("gateway.app") & {"anthropic", "aiohttp", "tiktoken"}


def test_an_answer_needs_no_provider_library() -> None:
    assert not loaded_by(ANSWER) & {"anthropic", "httpx", "httpx2", "pydantic"}
