"""A sink that writes down what a provider tells it, for the tests of this folder."""

from dataclasses import dataclass, field

from agentspace.v1 import message_pb2
from agentspace.v1.message_pb2 import BlockKind
from gateway.domain.context import PromptMessage
from gateway.domain.secret import Secret
from gateway.domain.usage import TokenCounts
from gateway.usecases.ports import ModelRequest

KEY = Secret("sk-ant-test-0123456789")


@dataclass(slots=True)
class Seen:
    """One block as it came."""

    kind: str
    deltas: list[str] = field(default_factory=list)
    tool_use_id: str = ""
    tool_name: str = ""
    signature: str = ""
    closed: bool = False

    @property
    def text(self) -> str:
        return "".join(self.deltas)


class RecordingSink:
    """Implements AnswerSink; refuses what run_turn's log would refuse."""

    def __init__(self) -> None:
        self.blocks: list[Seen] = []
        self.counts: list[TokenCounts] = []
        self.progressed = 0

    def progress(self) -> None:
        self.progressed += 1

    def open_block(self, kind: BlockKind, tool_use_id: str = "", tool_name: str = "") -> None:
        assert all(block.closed for block in self.blocks)
        name = message_pb2.BlockKind.Name(kind).removeprefix("BLOCK_KIND_").lower()
        self.blocks.append(Seen(name, tool_use_id=tool_use_id, tool_name=tool_name))

    def delta(self, text: str) -> None:
        assert not self.blocks[-1].closed
        self.blocks[-1].deltas.append(text)

    def close_block(self, signature: str = "") -> None:
        assert not self.blocks[-1].closed
        self.blocks[-1].closed = True
        self.blocks[-1].signature = signature

    def usage(self, counts: TokenCounts) -> None:
        self.counts.append(counts)

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.blocks if block.kind == "text")


def request(model: str, text: str = "Say something", *, key: Secret | None = KEY, system: str = "") -> ModelRequest:
    """A request with one question."""
    return ModelRequest(model, system, (PromptMessage("user", text),), 1024, key)
