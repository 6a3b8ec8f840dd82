"""The bearer token as it travels, over both doors. Called by gateway and websocket."""

from agentspace.client.errors import build


def authorization(token: str | None) -> str:
    """The value of the header; empty without a token. Raises DeniedError for one that no header can carry."""
    token = (token or "").strip()
    if not token:
        return ""
    if not (token.isascii() and token.isprintable()):
        raise build("UNAUTHENTICATED", "the token is not one line of printable ASCII")
    return f"Bearer {token}"
