"""Where a reader stands in a session, and what it has of one answer. Used by both resume loops; does no I/O."""

from collections.abc import Iterator, Sequence

from agentspace.client.errors import StreamGapError


class Position:
    """The last event a reader has: (epoch, seq). `known` is False until the first snapshot or acknowledgement."""

    def __init__(self, epoch: int = 0, seq: int | None = None) -> None:
        self.epoch = epoch
        self.seq = seq or 0
        self.known = seq is not None

    def set(self, epoch: int, seq: int) -> None:
        """Stand right after event `seq`."""
        self.epoch, self.seq, self.known = epoch, seq, True

    def advance(self, epoch: int, first: int, last: int) -> bool:
        """Take the events first..last. False: the reader has them. Raises StreamGapError if some are missing."""
        if epoch != self.epoch or not self.known:
            raise StreamGapError("INTERNAL", f"an event of epoch {epoch} came in epoch {self.epoch}", retryable=True)
        if last <= self.seq:
            return False
        if first != self.seq + 1:
            raise StreamGapError("INTERNAL", f"event {first} came after event {self.seq}", retryable=True)
        self.seq = last
        return True


class Answer:
    """The pieces of one turn's answer that the reader was given, by content block."""

    def __init__(self) -> None:
        self._blocks: dict[int, list[str]] = {}

    def heard(self, block: int, piece: str) -> None:
        """The reader was given a piece."""
        self._blocks.setdefault(block, []).append(piece)

    def missing(self, blocks: Sequence[str]) -> Iterator[tuple[int, str]]:
        """(block, rest) for what the stored answer has beyond what was heard, and counts it as heard.

        Less in store than was heard is what a crash leaves (the text after the last checkpoint). Raises StreamGapError
        when the two differ.
        """
        for block, stored in enumerate(blocks):
            heard = "".join(self._blocks.get(block, ()))
            if stored.startswith(heard):
                if len(stored) > len(heard):
                    self.heard(block, stored[len(heard) :])
                    yield block, stored[len(heard) :]
            elif not heard.startswith(stored):
                raise StreamGapError("INTERNAL", "the stored answer is not the one that was being read")
