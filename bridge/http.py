"""The plain HTTP routes, and the guard in front of every route.

Called by app.py, which registers them. Answers are JSON but for the metrics and the inspector page.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from bridge import guard
from bridge.guard import Guard
from bridge.link import Link, LinkError
from bridge.telemetry import Metrics
from bridge.websocket import TOKEN

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATIC = Path(__file__).parent / "static"
PAGES = {"/": ("index.html", "text/html"), "/inspector.js": ("inspector.js", "text/javascript")}
POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
STATUSES = {
    "INVALID_MESSAGE": 400,
    "PROVIDER_NOT_FOUND": 400,
    "UNAUTHENTICATED": 401,
    "MISSING_SCOPE": 403,
    "PROVIDER_KEY_MISSING": 404,
}
"""The gateway's reason to the HTTP status; anything else is 503."""


class Routes:
    """The handlers. clock: seconds, rising; only differences count."""

    def __init__(self, link: Link, rules: Guard, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._link = link
        self._rules = rules
        self._metrics = metrics
        self._clock = clock
        self._started = clock()

    @web.middleware
    async def guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let through only who may: 403 for a foreign Host or Origin, 401 without a good token where it is needed."""
        refusal = self._rules.refusal(request.headers)
        if refusal:
            return problem(403, "FORBIDDEN", refusal)
        if request.path == "/health":
            # Without authentication: whatever a probe sends along.
            return await handler(request)
        try:
            request[TOKEN] = guard.bearer(request.headers)
        except guard.TokenError:
            return unauthenticated("the Authorization header holds no bearer token")
        if not guard.is_local(_peer(request), request.headers):
            if not request[TOKEN]:
                return unauthenticated("a bearer token is needed")
            try:
                await self._link.hello(request[TOKEN])
            except LinkError as error:
                return refused(error)
        return await handler(request)

    async def health(self, _: web.Request) -> web.Response:
        """GET /health: the bridge is alive; uptime in seconds."""
        return answer({"status": "ok", "uptime": round(self._clock() - self._started, 3)})

    async def ready(self, _: web.Request) -> web.Response:
        """GET /ready: 200 when a chat would work up to the provider, else 503; says what is missing."""
        if not self._link.connected:
            return not_ready("GATEWAY_UNREACHABLE", "the gateway cannot be reached at the moment")
        try:
            state = await self._link.readiness()
        except LinkError as error:
            return not_ready(error.reason, error.message)
        parts = [{"name": part.name, "ready": part.ready, "detail": part.detail} for part in state.parts]
        return answer({"ready": state.ready, "parts": parts}, 200 if state.ready else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        """GET /metrics: the bridge's own and, while it can be reached, the gateway's."""
        text = self._metrics.text()
        try:
            text += await self._link.metrics()
        except LinkError:
            text += "# the gateway cannot be reached\n"
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def key(self, request: web.Request) -> web.Response:
        """GET /keys/{provider}: the key in clear, for a bearer token with the right to read keys."""
        token = request[TOKEN]
        if not token:
            return unauthenticated("a bearer token is needed")
        provider = request.match_info["provider"]
        try:
            key = await self._link.read_key(provider, token)
        except LinkError as error:
            return refused(error)
        return answer({"provider": provider, "key": key})

    async def page(self, request: web.Request) -> web.Response:
        """GET /: the inspector."""
        name, kind = PAGES[request.path]
        # A few kilobytes from the page cache: not worth a thread.
        body = (STATIC / name).read_bytes()
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=POLICY)

    def table(self) -> list[web.RouteDef]:
        """Give the routes."""
        pages = [web.get(path, self.page) for path in PAGES]
        return [
            web.get("/health", self.health),
            web.get("/ready", self.ready),
            web.get("/metrics", self.metrics),
            web.get("/keys/{provider}", self.key),
            *pages,
        ]


def answer(body: dict[str, object], status: int = 200) -> web.Response:
    """Make a JSON answer that nobody stores."""
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})


def problem(status: int, code: str, message: str) -> web.Response:
    """Make a refusal. code: one of the contract's reasons, or "FORBIDDEN"."""
    return answer({"code": code, "message": message}, status)


def unauthenticated(message: str) -> web.Response:
    """Make a 401."""
    response = problem(401, "UNAUTHENTICATED", message)
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def refused(error: LinkError) -> web.Response:
    """Make the answer to what the gateway refused."""
    if error.reason == "UNAUTHENTICATED":
        return unauthenticated(error.message)
    return problem(STATUSES.get(error.reason, 503), error.reason, error.message)


def not_ready(code: str, message: str) -> web.Response:
    """Make the answer of a bridge without a gateway."""
    part = {"name": "gateway", "ready": False, "detail": message}
    return answer({"ready": False, "parts": [part], "code": code}, 503)


def _peer(request: web.Request) -> str:
    name = request.transport.get_extra_info("peername") if request.transport is not None else None
    return str(name[0]) if isinstance(name, tuple) else ""
