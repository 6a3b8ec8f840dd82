"""ForkSession: copies a session's history into a new session. Called by rpc's session service."""

from gateway.domain.error import invalid, message_not_found
from gateway.domain.ids import resolve_session
from gateway.domain.session import Session
from gateway.usecases.find_session import living_session
from gateway.usecases.manage_sessions import MAX_TITLE_CHARACTERS
from gateway.usecases.ports import Clock, Ids, Store, Transaction


class ForkSession:
    """Forks sessions."""

    def __init__(self, *, store: Store, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def __call__(self, reference: str, message_id: str = "", title: str = "") -> Session:
        """A new session with the present history up to and including `message_id`; empty: all of it.

        The copies have ids of their own and keep the turn that made them, by which a question finds its answer. Neither
        turns nor usage are copied. Raises SESSION_NOT_FOUND, MESSAGE_NOT_FOUND or INVALID_MESSAGE.
        """
        session_id = resolve_session(reference)
        if len(title) > MAX_TITLE_CHARACTERS:
            raise invalid("title", f"at most {MAX_TITLE_CHARACTERS} characters")

        def work(tx: Transaction) -> Session:
            source = living_session(tx, session_id)
            history = tx.messages.history(session_id)
            if message_id:
                ends = [index for index, message in enumerate(history, 1) if message.message_id == message_id]
                if not ends:
                    raise message_not_found(message_id)
                history = history[: ends[0]]
            now = self._clock.now_ms()
            fork = Session(
                self._ids.session(),
                source.agent_id,
                source.model,
                now,
                now,
                title=title or source.title,
                system_prompt=source.system_prompt,
                message_count=len(history),
                forked_from=session_id,
            )
            tx.sessions.insert(fork)
            for message in history:
                tx.messages.insert(
                    message._replace(message_id=self._ids.message(), session_id=fork.session_id, position=0)
                )
            return fork

        return await self._store.write(work)
