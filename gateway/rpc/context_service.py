"""ContextService: shows what a model is sent."""

from agentspace.v1 import context_service_pb2 as pb
from agentspace.v1 import usage_pb2
from gateway.domain.access import Principal
from gateway.usecases.inspect_context import InspectContext


class ContextService:
    """Answers agentspace.v1.ContextService."""

    def __init__(self, inspect: InspectContext) -> None:
        self._inspect = inspect

    async def inspect_context(self, request: pb.InspectContextRequest, caller: Principal) -> pb.InspectContextResponse:
        """What would be sent next."""
        context = await self._inspect(request.session_id)
        return pb.InspectContextResponse(
            sections=[
                pb.ContextSection(
                    name=section.name,
                    content=section.content,
                    byte_count=section.byte_count,
                    token_estimate=section.token_estimate,
                    cost_estimate=_money(section.cost_pico),
                    token_method=section.token_method,
                )
                for section in context.sections
            ],
            totals=pb.ContextTotals(
                byte_count=context.byte_count,
                token_estimate=context.token_estimate,
                cost_estimate=_money(context.cost_pico),
                priced=context.cost_pico is not None,
            ),
            model=context.model,
        )


def _money(pico: int | None) -> usage_pb2.Money | None:
    return None if pico is None else usage_pb2.Money(pico_usd=pico)
