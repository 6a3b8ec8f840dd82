"""A text frame as a WebSocket server sends it: unmasked and in one piece (RFC 6455, section 5.2). Called by channels.py
and websocket.py; does no I/O.

aiohttp writes frames too, one await each; these bytes are made once for all who get them, and leave together.
"""

from struct import pack

SHORT = tuple(bytes((0x81, length)) for length in range(126))


def text_frame(text: bytes) -> bytes:
    """The frame that holds `text`, which is UTF-8."""
    length = len(text)
    if length < 126:
        return SHORT[length] + text
    if length < 65536:
        return pack("!BBH", 0x81, 126, length) + text
    return pack("!BBQ", 0x81, 127, length) + text
