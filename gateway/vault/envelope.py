"""EnvelopeVault: seals provider keys so that the database alone gives nothing away. Implements the port Vault.

A sealed key is: version (1 byte) · nonce (12) · wrapped data key (32 + 16) · nonce (12) · ciphertext and tag. Each
provider key has a data key of its own, wrapped by the master key; both steps are AES-256-GCM. The associated data names
the version, the step and the provider, so that a row put in another's place does not open.
"""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.domain.secret import Secret
from gateway.vault.master_key import KEY_BYTES, MasterKey

VERSION = 1
_NONCE = 12
_TAG = 16
_KEY_AT = 1 + _NONCE
_BODY_AT = _KEY_AT + KEY_BYTES + _TAG
_SHORTEST = _BODY_AT + _NONCE + _TAG


class EnvelopeVault:
    """Seals and opens with a master key."""

    def __init__(self, master_key: MasterKey) -> None:
        self._master_key = master_key

    def seal(self, provider: str, key: Secret) -> bytes:
        """The sealed form of a provider's key; another one each time. Raises VAULT_UNAVAILABLE without a master key."""
        try:
            master = AESGCM(self._master_key.to_seal())
        except GatewayError as error:
            raise _unavailable(provider, error.message) from None
        data_key = secrets.token_bytes(KEY_BYTES)
        nonce, body_nonce = secrets.token_bytes(_NONCE), secrets.token_bytes(_NONCE)
        wrapped = master.encrypt(nonce, data_key, _associated("data-key", provider))
        body = AESGCM(data_key).encrypt(body_nonce, key.reveal().encode(), _associated("provider-key", provider))
        return bytes([VERSION]) + nonce + wrapped + body_nonce + body

    def open(self, provider: str, sealed: bytes) -> Secret:
        """The provider's key. Raises VAULT_UNAVAILABLE unless it was sealed for this provider, under the present master
        key, and is unchanged."""
        if len(sealed) < _SHORTEST or sealed[0] != VERSION:
            raise _unavailable(provider, "the stored key is damaged or was sealed by a newer release")
        try:
            master = AESGCM(self._master_key.to_open())
        except GatewayError as error:
            raise _unavailable(provider, error.message) from None
        try:
            data_key = master.decrypt(sealed[1:_KEY_AT], sealed[_KEY_AT:_BODY_AT], _associated("data-key", provider))
            body = sealed[_BODY_AT:]
            key = AESGCM(data_key).decrypt(body[:_NONCE], body[_NONCE:], _associated("provider-key", provider))
        except InvalidTag:
            raise _unavailable(provider, "the stored key was sealed under another master key, or is damaged") from None
        return Secret(key.decode())


def _associated(step: str, provider: str) -> bytes:
    return f"agentspace\0{VERSION}\0{step}\0{provider}".encode()


def _unavailable(provider: str, message: str) -> GatewayError:
    return GatewayError(error_pb2.ERROR_REASON_VAULT_UNAVAILABLE, message, metadata={"provider": provider})
