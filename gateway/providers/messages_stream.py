"""The events of the Messages API, from JSON to calls of an AnswerSink. Sans-I/O; anthropic feeds it what each network
read brought. One call of the sink per read and block: neighbouring deltas that arrived together are handed on together,
up to the usual size of an event.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from agentspace.v1.message_pb2 import BlockKind
from gateway.domain.session_log import MERGE_LIMIT
from gateway.domain.turn_log import OPAQUE, TEXT, THINKING, TOOL_USE
from gateway.providers.sse import MAX_EVENT_BYTES
from gateway.providers.token_tally import TokenTally
from gateway.usecases.ports import AnswerSink

_KINDS: dict[str, BlockKind.ValueType] = {"text": TEXT, "thinking": THINKING, "tool_use": TOOL_USE}
_PIECE = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


class StreamError(Exception):
    """The provider sent an `error` event: its `error` object."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__()
        self.error = error


class MalformedError(ValueError):
    """The data is not what the API sends: not JSON, a missing field, a delta outside a block."""


class MessageStream:
    """One answer. `finished` turns True at `message_stop`; `stop_reason` is the provider's word, empty without one;
    `counted` says whether the provider told what was used when the answer was complete."""

    __slots__ = (
        "_block",
        "_heard",
        "_kind",
        "_pieces",
        "_signature",
        "_sink",
        "_size",
        "_tally",
        "counted",
        "finished",
        "stop_reason",
    )

    def __init__(self, sink: AnswerSink) -> None:
        self.finished = self.counted = False
        self.stop_reason = ""
        self._sink = sink
        self._tally = TokenTally()
        # The open block as the provider began it, its kind, whether any of its text came, its signature so far, and the
        # pieces of an opaque block's input with their size.
        self._block: dict[str, Any] | None = None
        self._kind: BlockKind.ValueType = TEXT
        self._heard = False
        self._signature = ""
        self._pieces: list[str] = []
        self._size = 0

    def feed(self, events: Sequence[bytes | bytearray]) -> None:
        """Handle the data of events that arrived together. Raises StreamError or MalformedError; what came before the
        offending event has reached the sink."""
        merged = ""
        try:
            for data in events:
                event = orjson.loads(data)
                kind = event["type"]
                if kind == "content_block_delta":
                    delta = event["delta"]
                    piece = _PIECE.get(delta["type"])
                    if piece is not None and self._kind != OPAQUE:
                        if self._block is None:
                            raise MalformedError
                        text = delta[piece]
                        if len(merged) + len(text) > MERGE_LIMIT and merged:
                            # Between two of the provider's, or it would be cut in the middle of one.
                            self._say(merged)
                            merged = ""
                        merged += text
                        continue
                if merged:
                    self._say(merged)
                    merged = ""
                self._handle(kind, event)
                if self.finished:
                    # Whatever follows, `[DONE]` of many a proxy for instance, is no part of the answer.
                    break
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise MalformedError from None
        finally:
            if merged:
                self._say(merged)

    def _say(self, text: str) -> None:
        self._heard = True
        self._sink.delta(text)

    def _handle(self, kind: str, event: dict[str, Any]) -> None:
        if kind == "content_block_start":
            self._begin(event["content_block"])
        elif kind == "content_block_delta":
            self._aside(event["delta"])
        elif kind == "content_block_stop":
            self._end()
        elif kind == "message_start":
            self._count(event["message"].get("usage"))
        elif kind == "message_delta":
            usage = event.get("usage")
            self._count(usage)
            self.counted = self._tally.tells_all(usage)
            self.stop_reason = _text(event["delta"].get("stop_reason") or self.stop_reason)
        elif kind == "message_stop":
            self.finished = True
        elif kind == "error":
            raise StreamError(event["error"])

    def _count(self, usage: dict[str, Any] | None) -> None:
        if usage:
            self._sink.usage(self._tally.add(usage))

    def _begin(self, block: dict[str, Any]) -> None:
        kind = _KINDS.get(block["type"], OPAQUE)
        self._block, self._kind, self._heard = block, kind, False
        self._signature, self._pieces, self._size = "", [], 0
        if kind == TOOL_USE:
            self._sink.open_block(kind, _text(block["id"]), _text(block["name"]))
        else:
            self._sink.open_block(kind)
        if kind != TEXT:
            # Watchers are to see at once that the model thinks or calls a tool.
            self._sink.delta("")
        if kind in (TEXT, THINKING) and (first := _text(block.get(block["type"]) or "")):
            self._say(first)

    def _aside(self, delta: dict[str, Any]) -> None:
        """A delta that is no text of its block: a signature, the input of an opaque block, or one nobody knows."""
        if self._block is None:
            raise MalformedError
        if delta["type"] == "signature_delta":
            self._signature += delta["signature"]
        elif delta["type"] == "input_json_delta":
            self._pieces.append(_text(delta["partial_json"]))
            self._size += len(self._pieces[-1])
            if self._size > MAX_EVENT_BYTES:
                raise MalformedError

    def _end(self) -> None:
        block = self._block
        if block is None:
            raise MalformedError
        if self._kind == OPAQUE:
            if self._pieces:
                block["input"] = orjson.loads("".join(self._pieces))
            self._say(orjson.dumps(block).decode())
        elif self._kind == TOOL_USE and not self._heard:
            self._say(orjson.dumps(block.get("input") or {}).decode())
        self._sink.close_block(self._signature)
        self._block, self._kind = None, TEXT


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise MalformedError
    return value
