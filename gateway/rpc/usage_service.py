"""UsageService: reads the ledger."""

from agentspace.v1 import usage_pb2
from agentspace.v1 import usage_service_pb2 as pb
from gateway.domain.access import Principal
from gateway.rpc import convert
from gateway.usecases.query_usage import QueryUsage


class UsageService:
    """Answers agentspace.v1.UsageService."""

    def __init__(self, query: QueryUsage) -> None:
        self._query = query

    async def query_usage(self, request: pb.QueryUsageRequest, caller: Principal) -> pb.QueryUsageResponse:
        """Sums."""
        sums = await self._query.totals(request.session_id)
        total = sums.grand_total
        return pb.QueryUsageResponse(
            per_model={model: convert.model_usage(used) for model, used in sums.per_model.items()},
            grand_total=usage_pb2.UsageTotal(
                total_cost=usage_pb2.Money(pico_usd=total.total_pico),
                total_tokens=total.input_tokens + total.output_tokens,
                request_count=total.requests,
                unpriced_count=total.unpriced,
            ),
        )

    async def list_usage_records(
        self, request: pb.ListUsageRecordsRequest, caller: Principal
    ) -> pb.ListUsageRecordsResponse:
        """Rows."""
        page = await self._query.records(request.session_id, request.page_size, request.page_token)
        return pb.ListUsageRecordsResponse(
            records=[convert.usage_record(r) for r in page.items], next_page_token=page.next_page_token
        )
