"""KeyService: keeps provider keys."""

from agentspace.v1 import key_service_pb2 as pb
from gateway.domain.access import Principal
from gateway.rpc import convert
from gateway.usecases.manage_keys import ManageKeys


class KeyService:
    """Answers agentspace.v1.KeyService."""

    def __init__(self, manage: ManageKeys) -> None:
        self._manage = manage

    async def put_key(self, request: pb.PutKeyRequest, caller: Principal) -> pb.PutKeyResponse:
        """Store a key."""
        stored = await self._manage.put(caller.name, request.provider, request.key)
        return pb.PutKeyResponse(key=convert.provider_key(stored))

    async def list_keys(self, request: pb.ListKeysRequest, caller: Principal) -> pb.ListKeysResponse:
        """All keys, masked."""
        return pb.ListKeysResponse(keys=[convert.provider_key(k) for k in await self._manage.list_keys(caller.name)])

    async def test_key(self, request: pb.TestKeyRequest, caller: Principal) -> pb.TestKeyResponse:
        """The provider's word."""
        detail = await self._manage.test(caller.name, request.provider)
        return pb.TestKeyResponse(accepted=not detail, detail=detail)

    async def delete_key(self, request: pb.DeleteKeyRequest, caller: Principal) -> pb.DeleteKeyResponse:
        """Remove a key."""
        return pb.DeleteKeyResponse(existed=await self._manage.delete(caller.name, request.provider))

    async def read_key(self, request: pb.ReadKeyRequest, caller: Principal) -> pb.ReadKeyResponse:
        """A key in clear."""
        key = await self._manage.read_back(caller.name, request.provider)
        return pb.ReadKeyResponse(provider=request.provider, key=key.reveal())
