"""App: the only place where the gateway's parts meet. Builds them, starts them, and stops them in order. Called by
__main__."""

import asyncio
import logging
import os
import secrets
import stat
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.config import Config
from gateway.domain.access import Credentials, Principal
from gateway.ids import NanoIds
from gateway.providers.anthropic import AnthropicProvider
from gateway.providers.catalog import BuiltInCatalog
from gateway.providers.estimator import TokenEstimator
from gateway.providers.scripted import ScriptedProvider
from gateway.rpc.audit_service import AuditService
from gateway.rpc.chat_service import ChatService
from gateway.rpc.context_service import ContextService
from gateway.rpc.gateway_service import GatewayService
from gateway.rpc.key_service import KeyService
from gateway.rpc.methods import Calls, Method, methods
from gateway.rpc.server import GrpcServer
from gateway.rpc.session_service import SessionService
from gateway.rpc.usage_service import UsageService
from gateway.storage.database import Database
from gateway.telemetry import Metrics
from gateway.usecases.cancel_turn import CancelTurn
from gateway.usecases.check_readiness import CheckReadiness
from gateway.usecases.checkpoint import Checkpoints
from gateway.usecases.compact_session import CompactSession
from gateway.usecases.delete_session import DeleteSession
from gateway.usecases.fork_session import ForkSession
from gateway.usecases.inspect_context import InspectContext
from gateway.usecases.live_sessions import ActiveTurn, LiveSessions
from gateway.usecases.manage_keys import KeyUse, ManageKeys
from gateway.usecases.manage_sessions import ManageSessions
from gateway.usecases.ports import Provider
from gateway.usecases.pulse import Pulse
from gateway.usecases.query_usage import QueryUsage
from gateway.usecases.read_audit import ReadAudit
from gateway.usecases.read_turns import ReadTurns
from gateway.usecases.recover_turns import RecoverTurns
from gateway.usecases.run_turn import RunTurn, interrupted
from gateway.usecases.send_message import SendMessage
from gateway.usecases.watch_session import WatchSession
from gateway.vault.envelope import EnvelopeVault
from gateway.vault.master_key import MasterKey

STOP_SECONDS = 1.0

_logger = logging.getLogger(__name__)


class App:
    """The running gateway: `start`, then `drain`, then `close`. Between start and drain, `connection` gives channels
    to a bridge in the same process, and `calls`, `methods` and `credentials` make single calls."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._tasks: set[asyncio.Task[Any]] = set()
        self._background: list[asyncio.Task[Any]] = []
        self._opened = AsyncExitStack()
        self.grpc_port = 0

    async def start(self) -> None:
        """Open the home, take the addresses, bring unfinished turns to an end, serve.

        May be cancelled: what was opened is closed again. Raises storage's DatabaseRefusedError when the database
        can't be used, OSError when the home can't, RuntimeError when an address can't.
        """
        async with AsyncExitStack() as opened:
            # If one part fails, those before it are closed again.
            await self._open(opened)
            self._opened = opened.pop_all()

    async def _open(self, opened: AsyncExitStack) -> None:
        config = self._config
        config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        clock = SystemClock()
        ids = NanoIds(clock)
        store = await Database.open(config.home / "agentspace.db")
        opened.push_async_callback(store.close)
        # From here on the home is ours alone.
        token = operator_token(config.home / "token")
        catalog, estimator = BuiltInCatalog(), TokenEstimator()
        agent = f"agentspace-gateway/{product_version()}"
        providers: dict[str, Provider] = {
            "anthropic": AnthropicProvider(base_url=config.anthropic_url, user_agent=agent),
            "local": AnthropicProvider(name="local", base_url=config.local_url, needs_key=False, user_agent=agent),
            "scripted": ScriptedProvider(),
        }
        for provider in providers.values():
            opened.push_async_callback(provider.close)
        opened.push_async_callback(self._end_tasks)
        vault = EnvelopeVault(MasterKey(config.master_key, config.home / "master.key"))
        environment = {"anthropic": config.anthropic_key} if config.anthropic_key else {}
        keys = KeyUse(vault, clock, environment)
        live = self._live = LiveSessions(store)
        metrics = Metrics(lambda: len(live.turns), lambda: sum(1 for _ in live))
        checkpoints = Checkpoints(store, live)
        run = self._run = RunTurn(
            store=store,
            live=live,
            catalog=catalog,
            providers=providers,
            keys=keys,
            estimator=estimator,
            clock=clock,
            ids=ids,
            checkpoints=checkpoints,
            spawn=self.spawn,
            observe=metrics.turn_ended,
            max_tokens=config.max_tokens,
        )
        cancel = CancelTurn(store, live, run)
        watch = WatchSession(store, live, clock, self.spawn)
        send = SendMessage(
            store=store,
            live=live,
            run=run,
            cancel=cancel,
            watch=watch,
            catalog=catalog,
            clock=clock,
            ids=ids,
            default_model=config.model,
            key_lifetime_ms=int(config.idempotency_hours * 3_600_000),
        )
        manage_keys = ManageKeys(store=store, vault=vault, keys=keys, catalog=catalog, providers=providers, clock=clock)
        readiness = CheckReadiness(
            store=store, catalog=catalog, providers=providers, keys=keys, run=run, default_model=config.model
        )
        services = {
            "SessionService": SessionService(
                ManageSessions(store=store, catalog=catalog, clock=clock, ids=ids, default_model=config.model),
                DeleteSession(store=store, live=live, clock=clock, end_turns=cancel.session),
                ForkSession(store=store, clock=clock, ids=ids),
                CompactSession(store=store, live=live, clock=clock, ids=ids),
            ),
            "ChatService": ChatService(send, watch, cancel, ReadTurns(store, live), live),
            "ContextService": ContextService(
                InspectContext(store=store, catalog=catalog, estimator=estimator, clock=clock)
            ),
            "UsageService": UsageService(QueryUsage(store)),
            "KeyService": KeyService(manage_keys),
            "AuditService": AuditService(ReadAudit(store)),
            "GatewayService": GatewayService(readiness, metrics.text, product_version()),
        }

        async def denied(caller: Principal, method: Method) -> None:
            if method.scope.startswith("keys"):
                await manage_keys.audit_denied(caller.name, method.frame or "key.read", "")

        self.methods = methods(services)
        self.calls = Calls(denied, metrics.called, self.spawn)
        self.credentials = Credentials(token, trust_local=not config.insecure)
        recover = RecoverTurns(
            store=store,
            live=live,
            run=run,
            catalog=catalog,
            estimator=estimator,
            clock=clock,
            ids=ids,
            observe=metrics.turn_ended,
        )
        self._server = GrpcServer(self.methods, self.calls, self.credentials, self.spawn)
        opened.push_async_callback(self._server.stop, STOP_SECONDS)
        # Before recovery, which lets waiting turns run: a start that fails must cost none of them.
        self.grpc_port = self._server.listen(f"{_bracketed(config.host)}:{config.grpc_port}")
        if config.socket is not None:
            if not remove_socket(config.socket):
                raise RuntimeError(f"{config.socket} is there and no socket; remove it, or choose another --socket")
            opened.callback(remove_socket, config.socket)
            self._server.listen_locally(config.socket)
        recovering = self.spawn(recover())
        try:
            if found := await asyncio.shield(recovering):
                _logger.info("recovered unfinished turns", extra={"turns": found})
            pulse = Pulse(live, run, cancel, config.limits, clock, self.spawn)
            self._background = [asyncio.create_task(checkpoints.run()), asyncio.create_task(pulse.run())]
            await self._server.start()
        except BaseException:
            # What runs already may end; what waits stays waiting for the next start.
            run.draining = True
            await asyncio.wait([recovering], timeout=config.drain_seconds)
            await self.drain()
            raise

    async def drain(self) -> None:
        """Take no new work, let running turns end for the drain time, keep the rest as interrupted."""
        self._run.draining = True
        self._server.set_serving(False)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_seconds):
                for live in self._live:
                    # What is being accepted runs afterwards.
                    async with live.lock:
                        pass
        running = [live.running for live in self._live if live.running is not None]
        if running:
            _logger.info("draining", extra={"turns": len(running), "seconds": self._config.drain_seconds})
            await _all_ended(running, self._config.drain_seconds)
            for active in running:
                self._run.stop(active, interrupted(active.turn.turn_id))
            await _all_ended(running, STOP_SECONDS)

    async def close(self) -> None:
        """End all calls and close everything. Call `drain` first, if it has started."""
        await self._opened.aclose()

    async def _end_tasks(self) -> None:
        tasks = [*self._background, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start a task that belongs to the application and not to whoever asked for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _all_ended(actives: list[ActiveTurn], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            for active in actives:
                await active.ended.wait()
    except TimeoutError:
        pass


def remove_socket(path: Path) -> bool:
    """Remove a socket, such as one that was left behind. False: what is there is none, and stays."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        path.unlink()
    except FileNotFoundError:
        pass
    return True


def operator_token(path: Path) -> str:
    """The operator's token, made at the first start: one line, readable by its owner only."""
    with suppress(FileNotFoundError):
        try:
            token = path.read_text(encoding="ascii").strip()
        except UnicodeDecodeError:
            raise RuntimeError(f"{path} is no token: expected one line of ASCII; remove it to get a new one") from None
        if token:
            return token
    token = secrets.token_urlsafe(32)
    # Whole or not at all, also if the machine stops here.
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{token}\n")
    fresh.replace(path)
    return token


def product_version() -> str:
    """The installed distribution's version; "0" in a bare checkout."""
    try:
        return version("agentspace-gateway")
    except PackageNotFoundError:
        return "0"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
