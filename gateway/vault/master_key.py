"""MasterKey: where the 32 bytes come from under which provider keys are sealed. Called by envelope; made by app.

The key is the value the operator configured (AGENTSPACE_MASTER_KEY), else the file `master.key` in the home folder,
which is made at the first sealing. It is read anew for every use and never kept.
"""

import base64
import binascii
import os
import secrets
import stat
import tempfile
from pathlib import Path

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.domain.secret import Secret

KEY_BYTES = 32
_LONGEST_FILE = 256


class MasterKey:
    """A source of the master key. `configured`, 32 bytes in base64, goes before `file`, which holds the same."""

    def __init__(self, configured: Secret | None, file: Path) -> None:
        self._configured = configured
        self._file = file

    def to_open(self) -> bytes:
        """The key, to open what was sealed. Raises VAULT_UNAVAILABLE when there is none or it cannot be trusted."""
        if self._configured is not None:
            return decode(self._configured.reveal(), "AGENTSPACE_MASTER_KEY")
        try:
            descriptor = os.open(self._file, os.O_RDONLY)
        except OSError as error:
            remedy = "put it back, or store the provider keys again"
            raise _unavailable(f"the master key file cannot be read: {error.strerror}; {remedy}") from None
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise _unavailable("the master key file is not a file")
            if os.name == "posix" and mode & 0o077:
                raise _unavailable("the master key file can be read by others than its owner; make its mode 0600")
            return decode(os.read(descriptor, _LONGEST_FILE).decode("ascii", errors="replace"), "the master key file")
        finally:
            os.close(descriptor)

    def to_seal(self) -> bytes:
        """The key, to seal something new; makes the file when there is no key yet. Raises VAULT_UNAVAILABLE."""
        if self._configured is None and not self._file.exists():
            try:
                self._create()
            except OSError as error:
                raise _unavailable(f"the master key file cannot be made: {error.strerror}") from None
        return self.to_open()

    def _create(self) -> None:
        """Write the whole file beside its place and link it there: it appears complete, and never over another's."""
        descriptor, draft = tempfile.mkstemp(prefix=".master.key.", dir=self._file.parent)  # 0600, O_EXCL
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
                stream.flush()
                os.fsync(descriptor)
            try:
                os.link(draft, self._file)
            except FileExistsError:
                return  # another process was first; its key is the one
        finally:
            Path(draft).unlink()
        # What is sealed under the key must not outlive it: the name has to be on the disk too.
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def decode(text: str, source: str) -> bytes:
    """The key in `text`, which came from `source`. Raises VAULT_UNAVAILABLE; the text is not repeated."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise _unavailable(f"{source} is not 32 bytes in base64")
    return key


def _unavailable(message: str) -> GatewayError:
    return GatewayError(error_pb2.ERROR_REASON_VAULT_UNAVAILABLE, message)
