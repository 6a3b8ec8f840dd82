"""NanoIds: fresh identifiers. app hands it to the use cases as a port."""

from nanoid import generate


class NanoIds:
    """Implements the Ids port with nanoids: 21 characters of A-Z, a-z, 0-9, _ and -, 126 random bits."""

    def session(self) -> str:
        """A bare nanoid, as the original's sessions have. Never begins with `-`: a command line would take it for an
        option."""
        while (fresh := _nanoid()).startswith("-"):
            pass
        return fresh

    def turn(self) -> str:
        """With the prefix `turn_`."""
        return f"turn_{_nanoid()}"

    def message(self) -> str:
        """With the prefix `msg_`."""
        return f"msg_{_nanoid()}"


def _nanoid() -> str:
    fresh: str = generate()
    return fresh
