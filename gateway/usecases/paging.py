"""Pages of a list: how large they are and how the next one is named. Used by every use case that lists.

A page token holds the place after which the next page begins and a digest of that place and of what is listed, so that
a changed token, or one of another list, is refused. It is no secret and grants nothing.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import orjson

from gateway.domain.error import GatewayError, invalid

T = TypeVar("T")

DEFAULT_SIZE = 50
LARGEST_SIZE = 1000
_LONGEST_TOKEN = 512
_LARGEST_INTEGER = 2**63 - 1

Place = tuple[int | str, ...]
"""Where a page ends: what its last item is ordered by."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page. `next_page_token` is empty on the last."""

    items: tuple[T, ...]
    next_page_token: str = ""


def page_size(given: int) -> int:
    """How many items a page holds at most: 0 means 50, more than 1000 means 1000. Negative raises INVALID_MESSAGE."""
    if given < 0:
        raise invalid("pageSize", "0 or more")
    return min(given, LARGEST_SIZE) or DEFAULT_SIZE


def page(found: Sequence[T], size: int, listing: str, place: Callable[[T], Place]) -> Page[T]:
    """The page out of `found`, which was asked for one item more than `size`."""
    if len(found) <= size:
        return Page(tuple(found))
    return Page(tuple(found[:size]), write_token(listing, place(found[size - 1])))


def write_token(listing: str, place: Place) -> str:
    """The token for the page after `place`. `listing` tells apart what is listed and by which filter."""
    return base64.urlsafe_b64encode(orjson.dumps([_digest(listing, place), *place])).decode().rstrip("=")


def read_token(token: str, listing: str, *shape: type) -> Place | None:
    """The place in a token of `listing`, made of values of the types `shape`; None for the first page's empty token.

    Raises INVALID_MESSAGE for a token that did not come from this listing.
    """
    if not token:
        return None
    try:
        if len(token) > _LONGEST_TOKEN:
            raise _foreign()
        padded = token + "=" * (-len(token) % 4)
        digest, *values = orjson.loads(base64.b64decode(padded.encode("ascii"), b"-_", validate=True))
        place = tuple(values)
        if digest != _digest(listing, place) or [type(value) for value in place] != list(shape):
            raise _foreign()
    except (binascii.Error, ValueError, TypeError):
        raise _foreign() from None
    if any(isinstance(value, int) and abs(value) > _LARGEST_INTEGER for value in place):
        raise _foreign()
    return place


def _digest(listing: str, place: Place) -> str:
    return hashlib.sha256(orjson.dumps([listing, *place])).hexdigest()[:16]


def _foreign() -> GatewayError:
    return invalid("pageToken", "the nextPageToken of the same list with the same filter")
