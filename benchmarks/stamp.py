"""The text of a delta: its number in the answer and the moment of its writing, in 17 characters.

Written by upstream, read by client: the two share this machine's monotonic clock, so the client knows every delta's age
whatever lies between them.
"""

import time

LENGTH = 17
_WRAP = 10**12


def stamp(number: int) -> bytes:
    """The delta of that number, written now. Of the number the last four digits count."""
    return b"#%04d%012d" % (number % 10_000, time.monotonic_ns() // 1000 % _WRAP)


def ages(text: str, now_us: int) -> list[int]:
    """How many microseconds ago each of the deltas in `text` was written."""
    return [(now_us - int(text[at + 5 : at + LENGTH])) % _WRAP for at in range(0, len(text), LENGTH)]


def is_whole(text: str, deltas: int) -> bool:
    """Whether an answer has every delta once, in order."""
    return len(text) == deltas * LENGTH and all(
        text[at * LENGTH : at * LENGTH + 5] == f"#{at % 10_000:04d}" for at in range(deltas)
    )
