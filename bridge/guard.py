"""Who may talk to the bridge at all: the Host, Origin and Authorization headers and the peer's address.

Called by http.py for every request, the upgrade to a WebSocket included. Loopback is no authentication: a page in a
browser can reach it, under another name (Host) or from another site (Origin). Does no I/O.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from multidict import CIMultiDictProxy

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(?::([0-9]{1,5}))?")
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,512}")
FORWARDING = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


class TokenError(Exception):
    """The Authorization header holds no well-formed bearer token."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules, with what is allowed beside loopback.

    hosts: "name" (any port) or "name:port", in lower case. origins: "https://name[:port]", compared exactly.
    """

    hosts: frozenset[str]
    origins: frozenset[str]

    def refusal(self, headers: CIMultiDictProxy[str]) -> str:
        """Say why a request is refused; empty when it is not."""
        hosts = headers.getall("Host", [])
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if not self._host_allowed(host):
            return "the Host header names neither this machine's loopback nor an allowed host"
        origins = headers.getall("Origin", [])
        if origins and (len(origins) > 1 or not self._origin_allowed(origins[0], host)):
            return "the Origin header is neither this server's own nor an allowed one"
        return ""

    def _host_allowed(self, host: str) -> bool:
        match = HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1]
        return host in self.hosts or name in self.hosts or _is_loopback_name(name)

    def _origin_allowed(self, origin: str, host: str) -> bool:
        return origin in (f"http://{host}", f"https://{host}") or origin in self.origins


def is_local(peer: str, headers: CIMultiDictProxy[str]) -> bool:
    """Tell whether a request comes from this machine. peer: the address of the socket's other end.

    A proxy on this machine that says for whom it asks is not local: its clients need a token.
    """
    return is_loopback(peer) and not any(name in headers for name in FORWARDING)


def is_loopback(address: str) -> bool:
    """Tell whether an address is loopback; a name never is, but for "localhost"."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address == "localhost"
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def bearer(headers: CIMultiDictProxy[str]) -> str:
    """Give the bearer token; empty without an Authorization header. Raises TokenError. Nothing else is ever read."""
    values = headers.getall("Authorization", [])
    if not values:
        return ""
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not TOKEN.fullmatch(token):
        raise TokenError
    return token


def _is_loopback_name(name: str) -> bool:
    if name in ("localhost", "[::1]"):
        return True
    return bool(re.fullmatch(r"127(\.[0-9]{1,3}){3}", name)) and is_loopback(name)
