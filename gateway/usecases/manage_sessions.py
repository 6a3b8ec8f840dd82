"""ManageSessions: opens, reads, lists and changes sessions, and lists their messages.

Called by rpc's session service.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from agentspace.v1 import error_pb2
from gateway.domain import ids as names
from gateway.domain.error import GatewayError, invalid
from gateway.domain.message import Message
from gateway.domain.session import Session
from gateway.usecases.find_session import living_session
from gateway.usecases.paging import Page, page_size, read_token, write_token
from gateway.usecases.ports import Catalog, Clock, Ids, Store, Transaction

MAX_TITLE_CHARACTERS = 200
MAX_SYSTEM_PROMPT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SessionChange:
    """The fields of a session that its caller can set."""

    title: str = ""
    model: str = ""
    system_prompt: str = ""


CHANGEABLE = ("title", "model", "system_prompt")


class ManageSessions:
    """Everything about sessions that no turn takes part in."""

    def __init__(self, *, store: Store, catalog: Catalog, clock: Clock, ids: Ids, default_model: str) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._ids = ids
        self._default_model = default_model

    async def create(self, agent_id: str, fields: SessionChange) -> Session:
        """Open an empty session. An empty agent is `default`, an empty model the server's default.

        Raises INVALID_MESSAGE or MODEL_NOT_FOUND.
        """
        fields = self._checked(replace(fields, model=fields.model or self._default_model))
        now = self._clock.now_ms()
        session = Session(
            self._ids.session(),
            names.agent_id(agent_id),
            fields.model,
            now,
            now,
            title=fields.title,
            system_prompt=fields.system_prompt,
        )
        await self._store.write(lambda tx: tx.sessions.insert(session))
        return session

    async def get(self, reference: str) -> Session:
        """The session with that id or key. Raises SESSION_NOT_FOUND."""
        session_id = names.resolve_session(reference)
        return await self._store.read(lambda tx: living_session(tx, session_id))

    async def list_sessions(
        self, size: int, token: str, *, agent_id: str = "", deleted: bool = False, prompts: bool = True
    ) -> Page[Session]:
        """A page, newest first; of one agent, or of all when `agent_id` is empty; the deleted ones or the others; with
        or without their system prompts. Raises INVALID_MESSAGE.
        """
        limit = page_size(size)
        agent = names.agent_id(agent_id) if agent_id else ""
        listing = f"sessions:{deleted:d}:{agent}"
        place = read_token(token, listing, int, str)
        after = None if place is None else (int(place[0]), str(place[1]))
        found, more = await self._store.read(
            lambda tx: tx.sessions.page(after=after, limit=limit, agent_id=agent, deleted=deleted, prompts=prompts)
        )
        return Page(tuple(found), write_token(listing, (found[-1].created_ms, found[-1].session_id)) if more else "")

    async def update(self, reference: str, change: SessionChange, mask: Collection[str], etag: str) -> Session:
        """Set the fields that `mask` names, or when it is empty those of `change` that are not empty.

        A change that changes nothing keeps the etag. Raises SESSION_NOT_FOUND, ETAG_MISMATCH when `etag` is given and
        not the present one, INVALID_MESSAGE or MODEL_NOT_FOUND.
        """
        session_id = names.resolve_session(reference)
        if unknown := set(mask) - set(CHANGEABLE):
            raise invalid("updateMask", f"names out of {', '.join(CHANGEABLE)}, not {min(unknown)!r}")
        named = [name for name in CHANGEABLE if (name in mask if mask else getattr(change, name))]
        # What is not named is not looked at.
        given = SessionChange(**{name: getattr(change, name) for name in named})
        if "model" in named and not given.model:
            given = replace(given, model=self._default_model)
        checked = self._checked(given)
        values = {name: getattr(checked, name) for name in named}

        def work(tx: Transaction) -> Session:
            session = living_session(tx, session_id)
            if etag and etag != session.etag:
                raise GatewayError(
                    error_pb2.ERROR_REASON_ETAG_MISMATCH,
                    "the session was changed since it was read",
                    metadata={"etag": session.etag},
                )
            changed = session._replace(**values)
            if changed == session:
                return session
            changed = changed._replace(revision=session.revision + 1, updated_ms=self._clock.now_ms())
            tx.sessions.update(changed)
            return changed

        return await self._store.write(work)

    async def list_messages(
        self, reference: str, size: int, token: str, *, newest_first: bool = False, generation: int = 0
    ) -> Page[Message]:
        """A page of a session's messages, of the present generation (0) or an earlier one.

        Later pages stay with the generation the first one had. Raises SESSION_NOT_FOUND or INVALID_MESSAGE.
        """
        session_id = names.resolve_session(reference)
        limit = page_size(size)
        listing = f"messages:{session_id}:{newest_first:d}:{generation}"
        place = read_token(token, listing, int, int)
        after = None if place is None else int(place[1])

        def work(tx: Transaction) -> tuple[int, tuple[list[Message], bool]]:
            session = living_session(tx, session_id)
            if not 0 <= generation <= session.generation:
                raise invalid("generation", f"0 to {session.generation}")
            chosen = int(place[0]) if place else generation or session.generation
            return chosen, tx.messages.page(
                session_id, after=after, limit=limit, newest_first=newest_first, generation=chosen
            )

        chosen, (found, more) = await self._store.read(work)
        return Page(tuple(found), write_token(listing, (chosen, found[-1].position)) if more else "")

    def _checked(self, fields: SessionChange) -> SessionChange:
        """The fields with the model's full name; raises for what is too long or not known."""
        if len(fields.title) > MAX_TITLE_CHARACTERS:
            raise invalid("title", f"at most {MAX_TITLE_CHARACTERS} characters")
        if len(fields.system_prompt.encode()) > MAX_SYSTEM_PROMPT_BYTES:
            raise invalid("systemPrompt", f"at most {MAX_SYSTEM_PROMPT_BYTES} bytes of UTF-8")
        return replace(fields, model=self._catalog.find(fields.model).name) if fields.model else fields
