"""AuditService: reads who did what with keys."""

from agentspace.v1 import audit_service_pb2 as pb
from gateway.domain.access import Principal
from gateway.rpc import convert
from gateway.usecases.read_audit import ReadAudit


class AuditService:
    """Answers agentspace.v1.AuditService."""

    def __init__(self, read: ReadAudit) -> None:
        self._read = read

    async def list_audit_events(
        self, request: pb.ListAuditEventsRequest, caller: Principal
    ) -> pb.ListAuditEventsResponse:
        """Rows, newest first."""
        page = await self._read(request.page_size, request.page_token)
        return pb.ListAuditEventsResponse(
            events=[convert.audit_event(e) for e in page.items], next_page_token=page.next_page_token
        )
