"""ChatService: converts and calls the use cases about turns."""

from agentspace.v1 import chat_service_pb2 as pb
from gateway.domain.access import Principal
from gateway.domain.error import invalid
from gateway.domain.ids import resolve_session
from gateway.rpc import convert
from gateway.usecases.cancel_turn import CancelTurn
from gateway.usecases.live_sessions import LiveSessions, Wake
from gateway.usecases.read_turns import ReadTurns
from gateway.usecases.send_message import Send, SendMessage
from gateway.usecases.watch_session import Feed, WatchSession

_ON_BUSY = frozenset(pb.OnBusy.values())
_ON_DISCONNECT = frozenset(pb.OnDisconnect.values())


class ChatService:
    """Answers agentspace.v1.ChatService."""

    def __init__(
        self, send: SendMessage, watch: WatchSession, cancel: CancelTurn, read: ReadTurns, live: LiveSessions
    ) -> None:
        self._send = send
        self._watch = watch
        self._cancel = cancel
        self._read = read
        self._live = live

    async def send_message(self, request: pb.SendMessageRequest, caller: Principal, wake: Wake) -> Feed:
        """Commit a message and follow its turn."""
        if request.on_busy not in _ON_BUSY:
            raise invalid("onBusy", "reject, queue or interrupt")
        if request.on_disconnect not in _ON_DISCONNECT:
            raise invalid("onDisconnect", "continue or cancel")
        send = Send(
            session=request.session_id,
            content=request.content,
            model=request.model,
            agent_id=request.agent_id,
            idempotency_key=request.idempotency_key,
            on_busy=request.on_busy,
            cancel_when_unwatched=request.on_disconnect == pb.ON_DISCONNECT_CANCEL,
        )
        return await self._send(send, caller, wake)

    async def watch_session(self, request: pb.WatchSessionRequest, caller: Principal, wake: Wake) -> Feed:
        """Follow a session."""
        after_seq = request.after_seq if request.HasField("after_seq") else None
        return await self._watch(request.session_id, request.epoch, after_seq, wake)

    async def cancel_turn(self, request: pb.CancelTurnRequest, caller: Principal) -> pb.CancelTurnResponse:
        """End turns."""
        if bool(request.turn_id) == bool(request.session_id):
            raise invalid("turnId", "either turnId or sessionId")
        if request.turn_id:
            turns = [await self._cancel.turn(request.turn_id)]
        else:
            live = await self._live.acquire(resolve_session(request.session_id))
            try:
                turns = await self._cancel.session(live)
            finally:
                self._live.release(live)
        return pb.CancelTurnResponse(turns=[convert.turn(turn) for turn in turns])

    async def get_turn(self, request: pb.GetTurnRequest, caller: Principal) -> pb.GetTurnResponse:
        """Read a turn."""
        return pb.GetTurnResponse(turn=convert.turn(await self._read.get(request.turn_id)))

    async def list_turns(self, request: pb.ListTurnsRequest, caller: Principal) -> pb.ListTurnsResponse:
        """Page through turns."""
        page = await self._read.list_turns(request.session_id, request.page_size, request.page_token)
        return pb.ListTurnsResponse(turns=[convert.turn(t) for t in page.items], next_page_token=page.next_page_token)

    async def wait_turn(self, request: pb.WaitTurnRequest, caller: Principal) -> pb.WaitTurnResponse:
        """Wait for a turn's end."""
        return pb.WaitTurnResponse(turn=convert.turn(await self._read.wait(request.turn_id, request.timeout_ms)))
