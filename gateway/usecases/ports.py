"""What the use cases need from outside, as interfaces. storage, providers and vault implement them; app hands them
in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from agentspace.v1.message_pb2 import BlockKind
from gateway.domain.audit import AuditEvent
from gateway.domain.context import PromptMessage
from gateway.domain.message import ContentBlock, Message
from gateway.domain.price import Price
from gateway.domain.secret import Secret
from gateway.domain.session import Session
from gateway.domain.turn import Turn, TurnPositions
from gateway.domain.usage import ModelTotal, TokenCounts, TurnUsage, UsageRecord

T = TypeVar("T")


class Clock(Protocol):
    """Time. The only way the product asks for it."""

    def now_ms(self) -> int:
        """Wall clock, Unix milliseconds; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class Ids(Protocol):
    """Fresh identifiers."""

    def session(self) -> str:
        """21 characters of the nanoid alphabet."""
        ...

    def turn(self) -> str:
        """`turn_` and 21 characters."""
        ...

    def message(self) -> str:
        """`msg_` and 21 characters."""
        ...


# --- storage
# -----------------------------------------------------------------------------------------------------------


PAGE_BYTES = 1024 * 1024
"""How much text a page of messages holds, as UTF-8 and beside what its last message adds. A message on the wire has its
text twice, and most gRPC clients take 4 MiB at a time."""
PROMPTS_BYTES = 2 * 1024 * 1024
"""The same of a page of sessions with their system prompts, which are there once."""


class Sessions(Protocol):
    """Sessions in a transaction. Deleted ones are found by get, and listed only on request."""

    def insert(self, session: Session) -> None: ...

    def get(self, session_id: str) -> Session | None: ...

    def update(self, session: Session) -> None:
        """Write every field but message_count, epoch, last_seq and generation."""
        ...

    def page(
        self, *, after: tuple[int, str] | None, limit: int, agent_id: str, deleted: bool, prompts: bool = True
    ) -> tuple[list[Session], bool]:
        """A page of the deleted or the living, newest first by (created_ms, session_id), of those below `after`; and
        whether more follow. It ends after `limit` sessions, or earlier with the one whose system prompt brings it to
        PROMPTS_BYTES; without `prompts` they are empty."""
        ...

    def touch(self, session_id: str, updated_ms: int, position: tuple[int, int] | None = None) -> None:
        """A message was committed: set updated_ms and count one message more. `position`, (epoch, last_seq), is set in
        the same step."""
        ...

    def set_position(self, session_id: str, epoch: int, last_seq: int) -> None: ...

    def set_generation(self, session_id: str, generation: int, message_count: int, updated_ms: int) -> None: ...


class Messages(Protocol):
    """Messages in a transaction, in the order of `position`."""

    def insert(self, message: Message) -> Message:
        """Append to the present generation; gives it the next position (or keeps a position that is not 0)."""
        ...

    def get(self, session_id: str, message_id: str) -> Message | None: ...

    def history(self, session_id: str) -> list[Message]:
        """The whole present generation, oldest first."""
        ...

    def page(
        self,
        session_id: str,
        *,
        after: int | None,
        limit: int,
        newest_first: bool,
        generation: int,
        room: int = PAGE_BYTES,
    ) -> tuple[list[Message], bool]:
        """A page, and whether more follow. It ends after `limit` messages, or earlier with the one that brings it to
        `room`, in bytes. `after` is the position of the last one seen; generation 0 is the present one."""
        ...

    def replace_before(self, session_id: str, position: int, generation: int) -> int:
        """Messages of the present generation below `position` end with `generation` - 1; returns how many."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a turn's log gained since the checkpoint before: for each block touched, its index, kind and ids, the text
    to append and the lengths of the chunks appended. `positions` and `usage` are those of now."""

    turn_id: str
    blocks: tuple[tuple[int, ContentBlock, tuple[int, ...]], ...]
    positions: TurnPositions
    usage: TurnUsage


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A turn's answer as stored: the blocks, and per block the lengths of its chunks."""

    content: tuple[ContentBlock, ...]
    chunk_lengths: tuple[tuple[int, ...], ...]


class Turns(Protocol):
    """Turns in a transaction."""

    def insert(self, turn: Turn) -> None: ...

    def get(self, turn_id: str) -> Turn | None: ...

    def find_by_key(self, principal: str, idempotency_key: str, not_before_ms: int) -> Turn | None:
        """The turn a key was last used for, unless it was created before `not_before_ms`."""
        ...

    def update(self, turn: Turn) -> None:
        """Write state, times, answer, stop reason, usage, error and positions."""
        ...

    def set_positions(self, turn_id: str, positions: TurnPositions) -> None: ...

    def append_checkpoints(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Of unfinished turns. Costs what the checkpoints hold, not what the answers hold."""
        ...

    def finish(self, turn: Turn, chunk_lengths: Sequence[Sequence[int]], *, checkpoints: bool = True) -> None:
        """As `update`, for a turn whose answer is in its message now: keeps the packed lengths and drops the
        checkpoints; without `checkpoints` the turn never had one."""
        ...

    def answer(self, turn_id: str) -> StoredAnswer | None:
        """The answer of an ended turn, or what the checkpoints of an unfinished one hold; None when there is
        neither."""
        ...

    def unfinished(self, session_id: str | None = None) -> list[Turn]:
        """Queued and running turns in the order they were accepted."""
        ...

    def after(self, session_id: str, seq: int, limit: int) -> list[Turn]:
        """Ended turns with an event after `seq`, by the first of their events."""
        ...

    def page(self, session_id: str, *, after: tuple[int, str] | None, limit: int) -> list[Turn]:
        """Newest first by (created_ms, turn_id)."""
        ...


class Usage(Protocol):
    """The ledger in a transaction."""

    def insert(self, record: UsageRecord) -> None:
        """Add a row and keep the roll-ups in step."""
        ...

    def totals(self, session_id: str | None) -> dict[str, ModelTotal]:
        """Sums by model, from the roll-ups."""
        ...

    def page(self, session_id: str | None, *, after: int | None, limit: int) -> list[UsageRecord]:
        """Newest first by record_id."""
        ...


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A provider key as it lies in the database: `sealed` can only be opened with the master key."""

    provider: str
    sealed: bytes
    masked: str
    created_ms: int
    last_used_ms: int = 0


class Keys(Protocol):
    """Sealed provider keys in a transaction."""

    def put(self, key: SealedKey) -> None: ...

    def get(self, provider: str) -> SealedKey | None: ...

    def all(self) -> list[SealedKey]: ...

    def delete(self, provider: str) -> bool: ...

    def mark_used(self, provider: str, used_ms: int) -> None: ...


class Audit(Protocol):
    """The audit log in a transaction. Append only."""

    def append(self, event: AuditEvent) -> None: ...

    def page(self, *, after: int | None, limit: int) -> list[AuditEvent]:
        """Newest first by event_id."""
        ...


class Transaction(Protocol):
    """One unit of work over all nouns: all of it happens or none."""

    @property
    def sessions(self) -> Sessions: ...
    @property
    def messages(self) -> Messages: ...
    @property
    def turns(self) -> Turns: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def audit(self) -> Audit: ...


class Store(Protocol):
    """The database. Work runs off the event loop, and again when another one of its transaction raises, so it must
    touch nothing but its transaction and its arguments.

    Both raise GatewayError STORAGE_UNAVAILABLE when the database cannot do it, and INTERNAL when the work meets damage
    in it; then nothing was written.
    """

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction and return after it is committed durably. If `work` raises, nothing of it is
        written."""
        ...

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on one consistent snapshot."""
        ...

    async def check(self) -> None:
        """Raises STORAGE_UNAVAILABLE unless the database can be written."""
        ...


# --- providers
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What a provider is asked. `model` is the provider's own name for it; `key` is None for providers that need
    none."""

    model: str
    system: str
    messages: tuple[PromptMessage, ...]
    max_tokens: int
    key: Secret | None


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ended in order. `stop_reason` is the provider's word. `counted`: the provider told at the end what
    was used."""

    stop_reason: str
    counted: bool = True


class AnswerSink(Protocol):
    """Where a provider puts an answer while it arrives. Never blocks."""

    def progress(self) -> None:
        """Bytes came, content or not."""
        ...

    def open_block(self, kind: BlockKind.ValueType, tool_use_id: str = "", tool_name: str = "") -> None: ...

    def delta(self, text: str) -> None:
        """More of the newest block."""
        ...

    def close_block(self, signature: str = "") -> None: ...

    def usage(self, counts: TokenCounts) -> None:
        """What has been used so far, as far as the provider told; the newest call holds."""
        ...


class Provider(Protocol):
    """A place where answers come from."""

    @property
    def name(self) -> str: ...

    @property
    def needs_key(self) -> bool: ...

    async def generate(self, request: ModelRequest, sink: AnswerSink) -> Ending:
        """One upstream attempt, no retries. Raises GatewayError with an UPSTREAM_* reason, `execution` NOT_STARTED
        where the provider surely did not run it. Cancelling closes the upstream connection at once."""
        ...

    async def test_key(self, key: Secret) -> str:
        """Empty when the provider accepts the key, else its reason for people."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the catalog knows it. `upstream_name` is what the provider is asked for. `prices` may be empty."""

    name: str
    upstream_name: str
    provider: str
    max_output_tokens: int
    context_tokens: int
    prices: tuple[Price, ...]


class Catalog(Protocol):
    """Models and prices."""

    @property
    def price_version(self) -> str: ...

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of the providers that can have a key."""
        ...

    def find(self, name: str) -> Model:
        """Raises MODEL_NOT_FOUND when no provider serves a model of that name. A new model of a known family is found,
        and unpriced."""
        ...


class Estimator(Protocol):
    """Counts tokens without a network."""

    def estimate(self, text: str) -> tuple[int, str]:
        """The number and its method, for instance (12, "estimate:o200k")."""
        ...


class Vault(Protocol):
    """Seals and opens provider keys."""

    def seal(self, provider: str, key: Secret) -> bytes: ...

    def open(self, provider: str, sealed: bytes) -> Secret:
        """Raises VAULT_UNAVAILABLE when it cannot be opened with the present master key."""
        ...
