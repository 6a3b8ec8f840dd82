"""Secret: a string that does not show itself in reprs, logs and formatted text."""


class Secret:
    """Holds a secret; only `reveal()` gives it out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for the one call that needs it."""
        return self._value

    def masked(self) -> str:
        """The last four characters behind an ellipsis; of a key shorter than 12, none."""
        return "…" + self._value[-4:] if len(self._value) >= 12 else "…"

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__
