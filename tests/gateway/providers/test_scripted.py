"""Scripted answers: exact text, told timing, told faults."""

import asyncio
from dataclasses import replace

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.error import MAY_HAVE_EXECUTED, NOT_STARTED, GatewayError
from gateway.domain.usage import TokenCounts
from gateway.providers.scripted import ScriptedProvider
from gateway.usecases.ports import Provider
from tests.gateway.providers.sinks import KEY, RecordingSink, request


class Naps:
    """A sleep that only writes down."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


async def play(model: str, text: str = "Say something") -> tuple[RecordingSink, str]:
    sink = RecordingSink()
    ending = await ScriptedProvider(Naps()).generate(request(model, text), sink)
    return sink, ending.stop_reason


async def test_it_is_a_provider_without_a_key() -> None:
    provider: Provider = ScriptedProvider()
    assert (provider.name, provider.needs_key) == ("scripted", False)
    assert await provider.test_key(KEY) == ""
    await provider.close()


@pytest.mark.parametrize("text", ["hello there", "  two\n\nlines\t here  ", "日本語 と emoji 🙂", "one"])
async def test_echo_is_exact_word_by_word(text: str) -> None:
    sink, stop_reason = await play("echo", text)
    assert sink.text == text
    assert stop_reason == "end_turn"
    assert len(sink.blocks[0].deltas) >= len(text.split())
    assert all(block.closed for block in sink.blocks)


async def test_words_are_tokens() -> None:
    sink = RecordingSink()
    await ScriptedProvider(Naps()).generate(request("echo", "one two three", system="be brief"), sink)
    assert sink.counts == [TokenCounts(uncached_input=5), TokenCounts(uncached_input=5, output=3)]


async def test_story_is_the_same_every_time() -> None:
    first, second = (await play("story"))[0], (await play("story", "other question"))[0]
    assert first.text == second.text
    assert 200 < len(first.text.split()) < 500


async def test_count_has_as_many_deltas_as_asked_of_the_size_asked() -> None:
    sink, _ = await play("count?n=200&size=17")
    assert [len(delta) for delta in sink.blocks[0].deltas] == [17] * 200
    assert (await play("count?n=3"))[0].text == "1 2 3 "


async def test_times_are_slept_where_told() -> None:
    naps = Naps()
    await ScriptedProvider(naps).generate(request("count?n=3&first=300ms&delay=20ms"), RecordingSink())
    assert naps.taken == [0.3, 0.02, 0.02]


async def test_think_thinks_then_answers() -> None:
    sink, _ = await play("think?n=4")
    assert [block.kind for block in sink.blocks] == ["thinking", "text"]
    assert sink.blocks[0].signature == "scripted"
    assert sink.blocks[0].deltas[0] == ""
    assert sink.counts[-1].thinking == 4


async def test_tool_calls_a_tool() -> None:
    sink, stop_reason = await play("tool")
    assert [block.kind for block in sink.blocks] == ["text", "tool_use"]
    assert (sink.blocks[1].tool_use_id, sink.blocks[1].tool_name) == ("toolu_scripted", "get_weather")
    assert sink.blocks[1].text == '{"city": "Lisbon", "unit": "celsius"}'
    assert stop_reason == "tool_use"


async def test_max_tokens_ends_the_answer() -> None:
    sink = RecordingSink()
    asked = replace(request("count?n=50"), max_tokens=7)
    ending = await ScriptedProvider(Naps()).generate(asked, sink)
    assert ending.stop_reason == "max_tokens"
    assert sink.counts[-1].output == len(sink.blocks[0].deltas) == 7


@pytest.mark.parametrize("fault", ["overloaded", "rate_limited", "truncated", "auth", "rejected", "unreachable"])
async def test_faults_after_some_text(fault: str) -> None:
    sink = RecordingSink()
    with pytest.raises(GatewayError) as caught:
        await ScriptedProvider(Naps()).generate(request(f"fail?after=5&with={fault}&retry=2s"), sink)
    name = error_pb2.ErrorReason.Name(caught.value.reason)
    assert name == f"ERROR_REASON_UPSTREAM_{fault.upper()}"
    assert caught.value.execution == MAY_HAVE_EXECUTED
    assert caught.value.retry_after_ms == 2000
    assert sink.text == "1 2 3 4 5 "
    assert not sink.blocks[0].closed


@pytest.mark.parametrize(("fault", "execution"), [("overloaded", NOT_STARTED), ("truncated", MAY_HAVE_EXECUTED)])
async def test_faults_at_once(fault: str, execution: int) -> None:
    sink = RecordingSink()
    with pytest.raises(GatewayError) as caught:
        await ScriptedProvider(Naps()).generate(request(f"fail?with={fault}"), sink)
    assert caught.value.execution == execution
    assert not sink.blocks


async def test_hang_lasts_until_cancelled() -> None:
    sink = RecordingSink()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ScriptedProvider(Naps()).generate(request("fail?after=2&with=hang"), sink)
    assert sink.text == "1 2 "
