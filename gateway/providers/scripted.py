"""Scripted: a provider without a model, a network or a key. The model's name tells its answers, their timing and its
faults, so demos and tests are the same every time. Built by app; plays what script reads.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator

from agentspace.v1 import error_pb2
from agentspace.v1.error_pb2 import ErrorReason
from agentspace.v1.message_pb2 import BlockKind
from gateway.domain.error import MAY_HAVE_EXECUTED, NOT_STARTED, GatewayError
from gateway.domain.secret import Secret
from gateway.domain.turn_log import TEXT, THINKING, TOOL_USE
from gateway.domain.usage import TokenCounts
from gateway.providers.script import Script, parse_script
from gateway.usecases.ports import AnswerSink, Ending, ModelRequest

Step = tuple[int, str]
"""A delta: how many blocks before it, and its text. One delta is one token."""

_KINDS = {"think": (THINKING, TEXT), "tool": (TEXT, TOOL_USE)}
_WORD = re.compile(r"\S+\s*|\s+")
_REASONS: dict[str, tuple[ErrorReason.ValueType, dict[str, str]]] = {
    "overloaded": (error_pb2.ERROR_REASON_UPSTREAM_OVERLOADED, {"status": "529"}),
    "rate_limited": (error_pb2.ERROR_REASON_UPSTREAM_RATE_LIMITED, {"status": "429"}),
    "truncated": (error_pb2.ERROR_REASON_UPSTREAM_TRUNCATED, {}),
    "auth": (error_pb2.ERROR_REASON_UPSTREAM_AUTH, {"status": "401", "provider": "scripted"}),
    "rejected": (error_pb2.ERROR_REASON_UPSTREAM_REJECTED, {"status": "400", "upstreamType": "invalid_request_error"}),
    "unreachable": (error_pb2.ERROR_REASON_UPSTREAM_UNREACHABLE, {}),
}
_STORY = (
    "A lighthouse stood at the end of a long stone pier, and in it lived a keeper who wrote everything down. Each "
    "ship that passed got a line in her book: its name, its hour, the colour of its lamp. People in the harbour "
    "asked why she took the trouble, for the ships passed whether or not she wrote.\n\n"
    "One winter a storm put out every light on the coast. Pilots lost their way, and in the morning nobody could "
    "say which ships had come through and which had not. The harbour master shouted, the owners shouted louder, and "
    "the telegraph brought a different answer each time it was asked.\n\n"
    "The keeper came down the pier with her book under her arm. She opened it on the table and read it out, line by "
    "line, from the first ship of the evening to the last. Where the storm had stopped her in the middle of a name "
    "she said so, and read what she had. Where she had seen nothing she said that too. When somebody came in late "
    "and had missed the beginning, she asked which line he had heard last, and went on from the next.\n\n"
    "By noon every ship was accounted for. Two were sheltering behind the island, one had turned back, and the "
    "smallest had tied up at the pier itself, its crew asleep below. Nobody had been counted twice and nobody had "
    "been forgotten.\n\n"
    "After that, people no longer asked why she wrote. They asked only that the book be kept dry, and they built "
    "her a better shelf for it, high above the water. She thanked them, sharpened her pencil, and went back up the "
    "stairs, since a sail had just come over the edge of the sea."
)
_THOUGHT = "The question is clear; first the facts, then the answer. "
_TOOL_INPUT = ('{"city": ', '"Lisbon", ', '"unit": ', '"celsius"}')


class ScriptedProvider:
    """Plays scripts. `sleep` waits for seconds; tests hand in one that does not wait."""

    name = "scripted"
    needs_key = False

    def __init__(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self._sleep = sleep

    async def generate(self, request: ModelRequest, sink: AnswerSink) -> Ending:
        """Play the script that `request.model` (the name without `scripted/`) tells.

        Words count as tokens; at most `max_tokens` of output are sent. Raises what the script says, or MODEL_NOT_FOUND.
        """
        script = parse_script(request.model)
        await self._sleep(script.first)
        if script.fault and not script.after:
            await self._fail(script)
        question = request.messages[-1].text if request.messages else ""
        prompt_words = sum(len(text.split()) for text in (request.system, *(m.text for m in request.messages)))
        counts = TokenCounts(uncached_input=prompt_words)
        sink.progress()
        sink.usage(counts)

        kinds = _KINDS.get(script.shape, (TEXT,))
        opened = sent = thought = 0
        stop_reason = "tool_use" if script.shape == "tool" else "end_turn"
        for block, text in _steps(script, question):
            if sent == request.max_tokens:
                stop_reason = "max_tokens"
                break
            if sent:
                await self._sleep(script.delay)
                sink.progress()
            while opened <= block:
                if opened:
                    _close(sink, kinds[opened - 1])
                _open(sink, kinds[opened])
                opened += 1
            sink.delta(text)
            sent += 1
            thought += kinds[block] == THINKING
        if script.fault:
            await self._fail(script)
        if opened:
            _close(sink, kinds[opened - 1])
        sink.usage(TokenCounts(uncached_input=prompt_words, output=sent, thinking=thought))
        return Ending(stop_reason)

    async def test_key(self, key: Secret) -> str:
        """Every key is fine: none is needed."""
        return ""

    async def close(self) -> None:
        """Nothing is held."""

    async def _fail(self, script: Script) -> None:
        if script.fault == "hang":
            await asyncio.Event().wait()
        reason, metadata = _REASONS[script.fault]
        refused = script.after == 0 and script.fault != "truncated"
        raise GatewayError(
            reason,
            f"the script says: {script.fault}",
            metadata=metadata,
            retry_after_ms=script.retry_after_ms,
            execution=NOT_STARTED if refused else MAY_HAVE_EXECUTED,
        )


def _steps(script: Script, question: str) -> Iterator[Step]:
    if script.shape == "echo":
        yield from ((0, word) for word in _WORD.findall(question))
    elif script.shape == "story":
        yield from ((0, word) for word in _WORD.findall(_STORY))
    elif script.shape == "count":
        yield from ((0, f"{i} ".ljust(script.size, ".")) for i in range(1, script.n + 1))
    elif script.shape == "think":
        thought = _WORD.findall(_THOUGHT)
        yield from ((0, thought[i % len(thought)]) for i in range(script.n))
        yield from ((1, word) for word in _WORD.findall("Here is the answer."))
    elif script.shape == "tool":
        yield from ((0, word) for word in _WORD.findall("Let me look that up."))
        yield from ((1, piece) for piece in _TOOL_INPUT)
    else:
        yield from ((0, f"{i} ") for i in range(1, script.after + 1))


def _open(sink: AnswerSink, kind: BlockKind.ValueType) -> None:
    if kind == TOOL_USE:
        sink.open_block(kind, "toolu_scripted", "get_weather")
    else:
        sink.open_block(kind)
    if kind != TEXT:
        sink.delta("")


def _close(sink: AnswerSink, kind: BlockKind.ValueType) -> None:
    sink.close_block("scripted" if kind == THINKING else "")
