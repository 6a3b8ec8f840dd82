"""Events to sink calls, and the same content as the SDK's own parser finds in the same bytes."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.session_log import MERGE_LIMIT
from gateway.domain.usage import TokenCounts
from gateway.providers.anthropic import AnthropicProvider
from gateway.providers.messages_stream import MalformedError, MessageStream, StreamError
from gateway.providers.sse import SseParser
from tests.fixtures.script import Redacted, Script, Text, Thinking, ToolUse, Usage, encoded, events
from tests.gateway.providers.sinks import RecordingSink, request

Json = dict[str, Any]


def start(index: int = 0, **block: Any) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int = 0, **change: Any) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": change}


def text(piece: str, index: int = 0) -> Json:
    return delta(index, type="text_delta", text=piece)


STOP: Json = {"type": "content_block_stop", "index": 0}


def read(*reads: list[Json]) -> tuple[RecordingSink, MessageStream]:
    sink = RecordingSink()
    stream = MessageStream(sink)
    for together in reads:
        stream.feed([json.dumps(event).encode() for event in together])
    return sink, stream


def test_deltas_that_came_together_are_one_delta() -> None:
    sink, _ = read(
        [start(type="text", text=""), text("a"), text("b")],
        [text("c")],
        [text(""), {"type": "ping"}],
        [text("d"), STOP],
    )
    assert sink.blocks[0].deltas == ["ab", "c", "d"]
    assert sink.blocks[0].closed


def test_deltas_that_came_together_are_parted_between_two_of_them() -> None:
    piece = "x" * 1000
    sink, _ = read([start(type="text", text=""), *(text(piece) for _ in range(100)), text("y" * 20_000), STOP])
    deltas = sink.blocks[0].deltas
    assert "".join(deltas) == 100 * piece + "y" * 20_000
    assert [len(delta) for delta in deltas[:-2]] == [MERGE_LIMIT // 1000 * 1000] * 6
    assert deltas[-1] == "y" * 20_000


def test_deltas_of_different_blocks_are_not() -> None:
    sink, _ = read([start(type="text", text=""), text("a"), STOP, start(1, type="text", text="x"), text("b", 1), STOP])
    assert [block.deltas for block in sink.blocks] == [["a"], ["x", "b"]]


def test_blocks_that_are_not_text_show_at_once() -> None:
    tool = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    for block in ({"type": "thinking", "thinking": ""}, tool, {"type": "redacted_thinking", "data": "x"}):
        sink, _ = read([start(**block)])
        assert sink.blocks[0].deltas == [""]


def test_signatures_close_thinking() -> None:
    pieces = [delta(type="signature_delta", signature=piece) for piece in ("ab", "cd")]
    sink, _ = read([start(type="thinking", thinking="", signature=""), *pieces, STOP])
    assert (sink.blocks[0].kind, sink.blocks[0].text, sink.blocks[0].signature) == ("thinking", "", "abcd")


def test_server_tools_are_kept_whole() -> None:
    call = start(type="server_tool_use", id="s", name="web_search", input={})
    pieces = [delta(type="input_json_delta", partial_json=piece) for piece in ("", '{"query":', ' "x"}')]
    result = start(1, type="web_search_tool_result", tool_use_id="s", content=[{"url": "u"}])
    sink, _ = read([call, *pieces, STOP, result, STOP])
    assert [block.kind for block in sink.blocks] == ["opaque", "opaque"]
    assert json.loads(sink.blocks[0].text) == {**call["content_block"], "input": {"query": "x"}}
    assert json.loads(sink.blocks[1].text) == result["content_block"]


@pytest.mark.parametrize("given_input", [{}, {"a": 1}])
def test_a_tool_call_without_deltas_has_the_input_it_began_with(given_input: Json) -> None:
    sink, _ = read([start(type="tool_use", id="t", name="n", input=given_input), STOP])
    assert json.loads(sink.blocks[0].text) == given_input


def test_usage_and_the_end() -> None:
    sink, stream = read(
        [{"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}],
        [{"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": {"output_tokens": 9}}],
    )
    assert sink.counts == [TokenCounts(3, output=1), TokenCounts(3, output=9)]
    assert (stream.stop_reason, stream.finished) == ("refusal", False)
    stream.feed([b'{"type":"message_stop"}'])
    assert stream.finished


@pytest.mark.parametrize(
    "absurd",
    [str(10**13), str(2**63), str(2**64), str(10**300), "-1", str(-(2**64)), "1.5", "1e300", '"9"', "true", "[]"],
)
def test_absurd_counts_do_no_harm(absurd: str) -> None:
    usage = '{"input_tokens":%s,"output_tokens":%s,"server_tool_use":{"web_search_requests":%s}}' % ((absurd,) * 3)
    sink, stream = read([{"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}])
    stream.feed(
        [
            b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":%s}' % usage.encode(),
            b'{"type":"message_stop"}',
        ]
    )
    assert sink.counts == [TokenCounts(3, output=1), TokenCounts(3, output=1)]
    assert (stream.stop_reason, stream.finished) == ("end_turn", True)


def test_nobody_knows_everything() -> None:
    sink, _ = read(
        [{"type": "new_event"}, start(type="text"), delta(type="new_delta", x=1), text("a")],
        [delta(type="citations_delta", citation={}), STOP, {"type": "message_delta", "delta": {}}],
    )
    assert sink.text == "a"


def test_an_error_event_comes_after_the_text_before_it() -> None:
    sink = RecordingSink()
    stream = MessageStream(sink)
    sent = [start(type="text", text=""), text("a"), {"type": "error", "error": {"type": "overloaded_error"}}]
    with pytest.raises(StreamError) as caught:
        stream.feed([json.dumps(event).encode() for event in sent])
    assert caught.value.error == {"type": "overloaded_error"}
    assert sink.text == "a"


@pytest.mark.parametrize(
    "data",
    [
        b"{", b"[]", b"null", b"3", b'"x"', b"{}", b'{"type":"content_block_start"}', b'{"type":"message_start"}',
        b'{"type":"content_block_start","content_block":{"type":"tool_use"}}', b'{"type":"content_block_stop"}',
        b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"no block"}}', b'{"type":"error"}',
        b'{"type":"message_delta"}', b'{"type":"message_delta","delta":{},"usage":[1]}', b"\xff",
        b'{"type":"content_block_start","content_block":{"type":["text"]}}', b'{"type":["x"]}',
        b'{"type":"content_block_start","content_block":{"type":"text","text":5}}',
        b'{"type":"content_block_start","content_block":[]}', b'{"type":"message_start","message":{"usage":"x"}}',
    ],
)  # fmt: skip
def test_what_the_api_would_not_send_is_malformed(data: bytes) -> None:
    if data == b'{"type":["x"]}':
        MessageStream(RecordingSink()).feed([data])
        return
    with pytest.raises(MalformedError):
        MessageStream(RecordingSink()).feed([data])


@pytest.mark.parametrize("change", [{"type": "text_delta"}, {"type": "text_delta", "text": 5}, {}, {"type": []}, "x"])
def test_malformed_deltas(change: Any) -> None:
    with pytest.raises(MalformedError):
        read([start(type="text", text=""), text("kept"), {"type": "content_block_delta", "delta": change}])


RECORDED = [
    Script(),
    Script(
        blocks=(
            Thinking(("Let me", " think ", "…"), "c2lnbg=="),
            Redacted("b3BhcXVl"),
            Text(("Grüße, ", "日本語 ", "🙂\n\ndata: not an event\n", '"quoted"\\')),
            ToolUse("look", ('{"place": ', '"here', ' and there", "n": 3}')),
            ToolUse("nothing", ()),
        ),
        usage=Usage(10, cache_write_5m=4, cache_write_1h=2, cache_read=7, thinking_tokens=5, web_searches=2),
        stop_reason="tool_use",
    ),
    Script(blocks=(Text(tuple(f"word{i} " for i in range(300))),), newline="\r\n"),
]


@pytest.fixture
async def play() -> AsyncIterator[Callable[[bytes, int], Any]]:
    """Starts a server that answers every request with the bytes, written in pieces; returns its address."""
    servers: list[TestServer] = []

    async def serve(body: bytes, piece: int) -> str:
        async def answer(incoming: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(incoming)
            for at in range(0, len(body), piece):
                await response.write(body[at : at + piece])
            return response

        app = web.Application()
        app.router.add_post("/v1/messages", answer)
        servers.append(TestServer(app))
        await servers[-1].start_server()
        return str(servers[-1].make_url("/"))

    yield serve
    for server in servers:
        await server.close()


@pytest.mark.parametrize("script", RECORDED)
@pytest.mark.parametrize("piece", [37, 100_000])
async def test_the_sdk_reads_the_same(play: Callable[[bytes, int], Any], script: Script, piece: int) -> None:
    body = b"".join(encoded(event, script.newline) for event in events(script, "claude-sonnet-5-5", "msg_1", 25))
    url = await play(body, piece)

    asked: Any = {"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    async with (
        anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as client,
        client.messages.stream(**asked) as stream,
    ):
        theirs = await stream.get_final_message()
    provider = AnthropicProvider(base_url=url)
    ours = RecordingSink()
    ending = await provider.generate(request("claude-sonnet-5-5"), ours)
    await provider.close()

    assert ending.stop_reason == theirs.stop_reason
    assert len(ours.blocks) == len(theirs.content)
    for mine, block in zip(ours.blocks, theirs.content, strict=True):
        assert mine.closed
        match block.type:
            case "text":
                assert (mine.kind, mine.text) == ("text", block.text)
            case "thinking":
                assert (mine.kind, mine.text, mine.signature) == ("thinking", block.thinking, block.signature)
            case "tool_use":
                assert (mine.tool_use_id, mine.tool_name, json.loads(mine.text)) == (block.id, block.name, block.input)
            case _:
                assert (mine.kind, json.loads(mine.text)) == ("opaque", block.to_dict())
    usage, counts = theirs.usage, ours.counts[-1]
    assert counts.uncached_input == usage.input_tokens
    assert counts.cache_write_5m + counts.cache_write_1h == (usage.cache_creation_input_tokens or 0)
    assert counts.cache_read == (usage.cache_read_input_tokens or 0)
    assert counts.output == usage.output_tokens


@given(st.lists(st.integers(1, 400), max_size=20))
def test_cuts_change_the_deltas_and_nothing_else(lengths: list[int]) -> None:
    body = b"".join(encoded(event) for event in events(RECORDED[1], "m", "msg_1", 25))
    whole, cut = RecordingSink(), RecordingSink()
    for sink, sizes in ((whole, []), (cut, lengths)):
        parser, stream, rest = SseParser(), MessageStream(sink), body
        for size in sizes:
            stream.feed(parser.feed(rest[:size]))
            rest = rest[size:]
        stream.feed(parser.feed(rest))
        assert stream.finished
    assert [(b.kind, b.text, b.signature) for b in cut.blocks] == [(b.kind, b.text, b.signature) for b in whole.blocks]
    assert cut.counts == whole.counts


@pytest.mark.parametrize(
    "behind", [b"[DONE]", b'{"type": "error", "error": {"type": "overloaded_error"}}', b'{"type": 1}']
)
def test_what_follows_the_end_is_no_part_of_the_answer(behind: bytes) -> None:
    sink = RecordingSink()
    stream = MessageStream(sink)
    whole = [start(type="text", text=""), text("a"), STOP, {"type": "message_stop"}]
    stream.feed([*(json.dumps(event).encode() for event in whole), behind, json.dumps(start(type="text")).encode()])
    assert stream.finished
    assert [block.deltas for block in sink.blocks] == [["a"]]


@pytest.mark.parametrize(
    ("first", "usage", "counted"),
    [
        ({"input_tokens": 5, "output_tokens": 1}, {"output_tokens": 3}, True),
        ({"input_tokens": 0, "output_tokens": 0}, {"output_tokens": 0}, True),
        (None, {"input_tokens": 5, "output_tokens": 3}, True),
        ({"input_tokens": 5, "output_tokens": 1}, {}, False),
        ({"input_tokens": 5, "output_tokens": 1}, None, False),
        ({"input_tokens": 5, "output_tokens": 1}, {"input_tokens": 5}, False),
        ({"input_tokens": 5, "output_tokens": 1}, {"output_tokens": None}, False),
        ({"output_tokens": 1}, {"output_tokens": 3}, False),
        (None, {"output_tokens": 3}, False),
    ],
)
def test_whether_all_that_was_used_was_told(first: Json | None, usage: Json | None, counted: bool) -> None:
    last: Json = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    started: Json = {"type": "message_start", "message": {"usage": first}}
    _, stream = read([started, start(type="text", text="a"), STOP], [last, {"type": "message_stop"}])
    assert stream.counted == counted
