"""SessionService: converts and calls the use cases about sessions."""

from agentspace.v1 import session_service_pb2 as pb
from gateway.domain import turn_event
from gateway.domain.access import Principal
from gateway.rpc import convert
from gateway.usecases.compact_session import CompactSession
from gateway.usecases.delete_session import DeleteSession
from gateway.usecases.fork_session import ForkSession
from gateway.usecases.manage_sessions import ManageSessions, SessionChange


class SessionService:
    """Answers agentspace.v1.SessionService."""

    def __init__(
        self, manage: ManageSessions, delete: DeleteSession, fork: ForkSession, compact: CompactSession
    ) -> None:
        self._manage = manage
        self._delete = delete
        self._fork = fork
        self._compact = compact

    async def create_session(self, request: pb.CreateSessionRequest, caller: Principal) -> pb.CreateSessionResponse:
        """Open an empty session."""
        fields = SessionChange(request.title, request.model, request.system_prompt)
        session = await self._manage.create(request.agent_id, fields)
        return pb.CreateSessionResponse(session=convert.session(session))

    async def get_session(self, request: pb.GetSessionRequest, caller: Principal) -> pb.GetSessionResponse:
        """Read a session."""
        return pb.GetSessionResponse(session=convert.session(await self._manage.get(request.session_id)))

    async def list_sessions(self, request: pb.ListSessionsRequest, caller: Principal) -> pb.ListSessionsResponse:
        """Page through sessions."""
        page = await self._manage.list_sessions(
            request.page_size,
            request.page_token,
            agent_id=request.agent_id,
            deleted=request.deleted,
            prompts=not request.without_system_prompts,
        )
        response = pb.ListSessionsResponse(next_page_token=page.next_page_token)
        for session in page.items:
            convert.fill_session(response.sessions.add(), session)
        return response

    async def update_session(self, request: pb.UpdateSessionRequest, caller: Principal) -> pb.UpdateSessionResponse:
        """Change a session."""
        change = SessionChange(request.session.title, request.session.model, request.session.system_prompt)
        session = await self._manage.update(request.session_id, change, list(request.update_mask.paths), request.etag)
        return pb.UpdateSessionResponse(session=convert.session(session))

    async def delete_session(self, request: pb.DeleteSessionRequest, caller: Principal) -> pb.DeleteSessionResponse:
        """Hide a session."""
        return pb.DeleteSessionResponse(session=convert.session(await self._delete.delete(request.session_id)))

    async def restore_session(self, request: pb.RestoreSessionRequest, caller: Principal) -> pb.RestoreSessionResponse:
        """Bring a session back."""
        return pb.RestoreSessionResponse(session=convert.session(await self._delete.restore(request.session_id)))

    async def fork_session(self, request: pb.ForkSessionRequest, caller: Principal) -> pb.ForkSessionResponse:
        """Copy a session."""
        session = await self._fork(request.session_id, request.message_id, request.title)
        return pb.ForkSessionResponse(session=convert.session(session))

    async def compact_session(self, request: pb.CompactSessionRequest, caller: Principal) -> pb.CompactSessionResponse:
        """Replace old messages by a summary."""
        session = await self._compact(request.session_id, request.summary, request.keep_from_message_id)
        return pb.CompactSessionResponse(session=convert.session(session))

    async def list_messages(self, request: pb.ListMessagesRequest, caller: Principal) -> pb.ListMessagesResponse:
        """Page through messages."""
        page = await self._manage.list_messages(
            request.session_id,
            request.page_size,
            request.page_token,
            newest_first=request.newest_first,
            generation=request.generation,
        )
        return pb.ListMessagesResponse(
            messages=[turn_event.message(m) for m in page.items], next_page_token=page.next_page_token
        )
