"""Page sizes and tokens."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.error import GatewayError
from gateway.usecases.paging import Page, page, page_size, read_token, write_token

INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)


@pytest.mark.parametrize(("given_size", "size"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_sizes_are_brought_into_range(given_size: int, size: int) -> None:
    assert page_size(given_size) == size


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(GatewayError, match="pageSize"):
        page_size(-1)


def test_there_is_a_next_page_only_if_one_item_more_was_found() -> None:
    assert page([1, 2], 2, "x", lambda n: (n,)) == Page((1, 2))
    first = page([1, 2, 3], 2, "x", lambda n: (n,))
    assert first.items == (1, 2)
    assert read_token(first.next_page_token, "x", int) == (2,)


@given(st.text(max_size=20), INTEGERS, st.text(max_size=21))
def test_a_token_gives_its_place_back(listing: str, number: int, name: str) -> None:
    token = write_token(listing, (number, name))
    assert read_token(token, listing, int, str) == (number, name)
    assert token.isascii()
    assert "=" not in token


def test_the_empty_token_is_the_first_page() -> None:
    assert read_token("", "x", int) is None


def test_a_token_of_another_list_is_refused() -> None:
    with pytest.raises(GatewayError, match="pageToken"):
        read_token(write_token("sessions:0:", (1, "a")), "sessions:1:", int, str)


def test_a_token_changed_anywhere_is_refused() -> None:
    token = write_token("x", (1, "a"))
    for index, character in enumerate(token[:-1]):
        changed = token[:index] + ("A" if character != "A" else "B") + token[index + 1 :]
        with pytest.raises(GatewayError, match="pageToken"):
            read_token(changed, "x", int, str)


def packed(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "ä",
        "\udcff",
        "!" * 8,
        "A" * 10_000,
        packed(None),
        packed(1),
        packed({}),
        packed([]),
        packed(["digest"]),
        packed(["digest", "\ud800"]),
        packed(["digest", 2**64]),
        packed([1, 1]),
        packed([["digest"], 1]),
        base64.urlsafe_b64encode(b"[" * 300).decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        write_token("x", ("1",)),
        write_token("x", (1, 1)),
        write_token("x", (True,)),
        write_token("x", (2**63,)),
    ],
)
def test_anything_else_is_refused(token: str) -> None:
    with pytest.raises(GatewayError, match="pageToken"):
        read_token(token, "x", int)
