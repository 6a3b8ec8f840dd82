"""What the product promises, by id. tests/journeys/test_requirements.py ties each promise to its tests, both ways.

A test says what it proves: `@pytest.mark.requirement("chat.stored")`. A promise without a test fails unless it is
listed in UNPROVEN, and so does a mark that names no promise, and a promise in UNPROVEN that a test proves.
"""

from collections.abc import Mapping

PROMISES: Mapping[str, str] = {
    "accepted.durable": "An accepted message and its turn survive kill -9 of the gateway at any moment after.",
    "chat.both-doors": "A conversation begun over one door goes on over the other, in one session.",
    "chat.sent-as-stored": "What reaches the provider is the stored conversation, each message once and in order.",
    "chat.restart": "After a restart the conversation goes on where it was.",
    "chat.one-writer": "Of two chats at once in one session the second gets STREAM_IN_PROGRESS, on any connection.",
    "chat.parallel-sessions": "Chats in different sessions run side by side.",
    "chat.survives-client": "A turn whose client left goes on to its end and is stored.",
    "failure.one-error": "A failing provider ends the turn in one typed error; the session is usable at once.",
    "failure.nothing-left": "After a failed turn no unanswered user message is in what is sent next.",
    "failure.not-twice": "Nothing is generated or billed a second time behind the sender's back.",
    "crash.nothing-twice": "After kill -9 no accepted message is generated twice, and queued ones run in their order.",
    "crash.prefix": "After kill -9 a partial answer is a prefix of what was sent, at most a checkpoint short.",
    "crash.ready": "After kill -9 the gateway is ready within 3 s of its start, with a sound database.",
    "resume.gapless": "However often a watcher is dropped, what it saw together is every event once, in order.",
    "resume.reset": "A position that cannot be used is answered with a reset, its reason and a snapshot.",
    "resume.snapshot": "A snapshot in the middle of a turn and what follows it join without a seam.",
    "send.idempotent": "The same key is one turn and one call: at once, later, after a restart; other bodies conflict.",
    "send.queue": "Queued messages run in their order, at most 20 wait, and they survive kill -9.",
    "send.interrupt": "onBusy interrupt ends what runs and what waits, and then runs.",
    "cancel.prompt": "Within 1 s of a cancel, at any phase, the provider's call is closed and the end is stored.",
    "ledger.adds-up": "Totals equal the sum of the rows, by session and by model, with every class of token.",
    "ledger.unpriced": "A model without a known price is shown as unpriced, never as zero or a guess.",
    "context.sections": "The inspector shows what would be sent next in sections whose sums are right.",
    "v1.exact": "A level 1 connection sees the original's twelve frames with exactly their fields.",
    "v1.subprotocol": "An unknown subprotocol alone is refused with 400.",
    "v2.hello": "The first frame of a level 2 connection is hello, with limits and features.",
    "bad-input.answered": "Bad frames are answered with a typed error and the connection stays usable.",
    "bad-input.closed": "Too large, binary and not UTF-8 frames close the connection with 1009, 1003 and 1007.",
    "guard.host": "A request whose Host is not ours is refused.",
    "guard.origin": "A page of another origin can open no WebSocket.",
    "slow-client.bounded": "A socket that does not read makes nothing grow and slows nobody else.",
    "keys.sealed": "A stored key is in no file under the home in clear, in no log line, error or repr.",
    "keys.audited": "Every read of a key has an audit row; without the row there is no key.",
    "keys.operator-only": "The local principal can neither store nor read keys.",
    "ready.truthful": "GET /ready answers 200 only when a chat would work up to the provider.",
    "health.serving": "Health says SERVING, and reflection lists the services, v1 and v1alpha.",
    "stop.drains": "SIGTERM lets turns end for a grace, keeps the rest as interrupted, and closes sockets with 1012.",
    "clock.moves": "The clock may be set back or forth: nothing is lost, out of order, or taken for too old.",
    "disk.recovers": "While the database is locked or full, errors are typed; then all goes on, without a restart.",
    "limits.end-turns": "A provider that is silent for too long, or never ends, is given up with the limit's name.",
    "watchers.harmless": "A hundred watchers, ten of which never read, slow nothing down, and all get everything.",
    "stop.clean": "SIGTERM ends both servers in order, with exit code 0.",
}

# Promises that no test proves yet. Take an id out when its test lands.
UNPROVEN: frozenset[str] = frozenset()
