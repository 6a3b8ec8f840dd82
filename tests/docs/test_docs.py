"""The documentation names everything there is, shows nothing that is not, and its code runs."""

import ast
import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

import bridge.config
import gateway.config
from agentspace.v1 import annotations_pb2
from agentspace.v1.error_pb2 import ErrorReason
from agentspace.v1.frame_pb2 import ClientFrame, ServerFrame
from bridge import closing
from bridge.frames import Codec
from docs import reference
from tests.fixtures.stack import Stack, Talk, clean_environment, running_stack

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def code(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_reference_is_written_from_the_contract() -> None:
    assert PROTOCOL.split(reference.MARK)[1] == reference.reference().removeprefix(reference.MARK), (
        "run python docs/reference.py"
    )


@pytest.mark.parametrize("frame", [ClientFrame, ServerFrame])
def test_every_frame_and_field_is_documented(frame: Any) -> None:
    for member in frame.DESCRIPTOR.oneofs_by_name["body"].fields:
        type_ = member.GetOptions().Extensions[annotations_pb2.frame].type
        part = PROTOCOL.split("### From clients" if frame is ClientFrame else "### From the server")[1]
        part = part.split(f"\n#### `{type_}`\n", 1)[1].split("\n####", 1)[0]
        assert f'"type": "{type_}"' in part
        for field in member.message_type.fields:
            assert f"| `{field.json_name}` |" in part, f"{type_}: {field.json_name}"


def test_every_reason_and_close_code_is_documented() -> None:
    for name in ErrorReason.keys()[1:]:
        assert f"\n| `{name.removeprefix('ERROR_REASON_')}` |" in PROTOCOL
    for item in closing.TABLE:
        assert f"\n| {item.code} | {item.reason} |" in PROTOCOL


def test_every_example_is_json_and_every_client_frame_is_taken() -> None:
    known = {
        field.GetOptions().Extensions[annotations_pb2.frame].type
        for field in ServerFrame.DESCRIPTOR.oneofs_by_name["body"].fields
    }
    for block in code(PROTOCOL, "json"):
        frame = json.loads(block)
        if "id" in frame:
            Codec(2).decode(block)
        else:
            assert frame["type"] in known


def test_the_examples_could_have_happened() -> None:
    frames = {frame["type"]: frame for frame in map(json.loads, code(PROTOCOL, "json"))}
    assert [kind for kind, frame in frames.items() if not frame.keys() & {"id", "requestId"}] == ["hello"]
    ends = [frames["chat.stream.end"], frames["turn.get"]["turn"]]
    assert [end["state"] for end in ends] == ["completed", "completed"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", ends[0]["cost"]["priceVersion"])


def settings() -> Iterator[str]:
    """Every variable and flag of both servers."""
    for module in (gateway.config, bridge.config):
        assert module.__file__ is not None
        source = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for node in ast.walk(source):
            if isinstance(node, ast.Constant) and re.fullmatch(r"(AGENTSPACE|ANTHROPIC)_[A-Z_]+", str(node.value)):
                yield str(node.value)
        for action in module.parser()._actions:
            yield from (option for option in action.option_strings if option not in ("-h", "--help"))


def test_every_setting_is_documented_and_every_documented_one_is_there() -> None:
    there = set(settings())
    documented = {
        name
        for line in OPERATIONS.split("## Settings")[1].split("## Files")[0].splitlines()
        if line.startswith("| ")
        for cell in line.split("|")[1:3]
        for name in re.findall(r"`([^`]+)`", cell)
    }
    assert documented == there


def test_the_flags_of_each_server_are_documented() -> None:
    for module in (gateway.config, bridge.config):
        (row,) = re.findall(rf"^\| `{module.parser().prog}` \|(.*)\|$", OPERATIONS, re.MULTILINE)
        there = {option for action in module.parser()._actions for option in action.option_strings}
        assert set(re.findall(r"`([^`]+)`", row)) == there - {"-h", "--help"}


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
        anchors = {re.sub(r"[^\w -]", "", line.lstrip("# ")).lower() for line in text.splitlines() if line[:1] == "#"}
        for anchor in set(re.findall(r"\]\(#([^)]+)\)", text)):
            assert anchor in anchors, f"{page.name}: #{anchor}"


# --- what runs ---


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    """Both servers, with the scripted model of the README."""
    async with running_stack("http://127.0.0.1:1", model="scripted/echo") as running:
        (running.home / "runtime.json").write_text(
            json.dumps(
                {
                    "pid": os.getpid(),
                    "port": running.port,
                    "grpcPort": running.grpc_port,
                    "startedAt": "2026-01-01T00:00:00Z",
                }
            )
        )
        yield running


async def shell(line: str, stack: Stack) -> tuple[int, str, str]:
    """Run a line of the documentation as a person would, in the stack's home."""
    seen = clean_environment(HOME=str(stack.home.parent), AGENTSPACE_HOME=str(stack.home))
    seen["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_shell(
        line,
        cwd=stack.home.parent,
        env=seen,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_readmes_shell_lines_run(stack: Stack) -> None:
    lines = [line.split(" #")[0].strip() for block in code(README, "sh") for line in block.splitlines()]
    status, out, err = await shell("agentspace chat --json hello", stack)
    assert status == 0, err
    session = next(frame["sessionId"] for frame in map(json.loads, out.splitlines()) if "sessionId" in frame)
    # These stay in the foreground or talk to a person; make is run by whoever runs this.
    skipped = ("make", "agentspace attach", "agentspace keys")
    ran = 0
    for line in lines:
        if not line or line.startswith(skipped) or line == "agentspace chat":
            continue
        line = line.replace("SESSION", session).replace("127.0.0.1:3272", stack.target)
        status, out, err = await shell(line, stack)
        assert status == 0, f"{line}\n{err}"
        assert out, line
        ran += 1
    assert ran >= 6


@pytest.mark.asyncio(loop_scope="module")
async def test_the_readmes_python_runs(stack: Stack) -> None:
    (snippet,) = code(README, "python")
    script = stack.home.parent / "readme.py"
    script.write_text(snippet.replace("127.0.0.1:3272", stack.target), encoding="utf-8")
    status, out, err = await shell(f"{sys.executable} {script}", stack)
    assert (status, out) == (0, "hello"), err


@pytest.mark.asyncio(loop_scope="module")
async def test_the_readmes_web_page_runs(stack: Stack) -> None:
    (snippet,) = code(README, "js")
    offered = re.search(r'\["([^"]+)"\]', snippet)
    sent = re.search(r"JSON\.stringify\((\{.*?\})\)", snippet)
    assert offered is not None
    assert sent is not None
    frame = re.sub(r"(\w+):", r'"\1":', sent[1])
    headers = {"Origin": stack.url}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{stack.url}/gateway", protocols=[offered[1]], headers=headers) as socket,
    ):
        await socket.send_str(frame)
        frames = await Talk(socket).hear_until("chat.stream.end", "error")
    text = "".join(frame["delta"] for frame in frames if frame["type"] == "chat.stream.delta")
    assert text == json.loads(frame)["content"]


@pytest.mark.asyncio(loop_scope="module")
async def test_every_metric_is_documented_and_every_documented_one_is_there(stack: Stack) -> None:
    async with stack.talk() as talk:
        await talk.say("chat.send", content="count me")
        await talk.hear_until("chat.stream.end")
    async with aiohttp.ClientSession() as session, session.get(f"{stack.url}/metrics") as answer:
        text = await answer.text()
    there = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {name for name in there if not name.endswith("_created")} == set(
        re.findall(r"^\| `(agentspace_\w+)` \|", OPERATIONS, re.MULTILINE)
    )


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 command is not installed")
async def test_the_backup_line_runs(stack: Stack) -> None:
    (block,) = code(OPERATIONS, "sh")
    status, _, err = await shell(block.strip().replace("~/.agentspace", str(stack.home)), stack)
    assert status == 0, err
    assert (stack.home.parent / "backup.db").stat().st_size > 0


@pytest.mark.asyncio(loop_scope="module")
async def test_the_files_in_the_home_are_documented(stack: Stack) -> None:
    await shell("agentspace chat hello", stack)
    table = OPERATIONS.split("## Files")[1].split("## Limits")[0]
    for path in stack.home.iterdir():
        name = path.name.removesuffix("-wal").removesuffix("-shm")
        assert f"`{name}`" in table, path.name
