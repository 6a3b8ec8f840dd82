"""Plan: what the load client is to do. Made by steps, sent by processes, carried out by client."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Plan:
    """`kind` names a function of client. Times are in microseconds; `stagger_us` spreads the starts of the chats.

    `direct` asks the upstream itself. `request` is the frame of kind `asked`, which is asked `turns` times. With a
    `token` the connections are the bearer's; `keyed` sends have an idempotency key.
    """

    kind: str
    port: int = 0
    level: int = 2
    direct: bool = False
    sockets: int = 1
    turns: int = 1
    deltas: int = 0
    gap_us: int = 0
    first_us: int = 0
    stagger_us: int = 0
    watchers: int = 0
    token: str = ""
    keyed: bool = False
    request: dict[str, object] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """The user message, which tells the upstream its pace."""
        return f"deltas={self.deltas} gap_us={self.gap_us} first_us={self.first_us}"
