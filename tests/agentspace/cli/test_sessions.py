"""`agentspace sessions`."""

from tests.agentspace.command import call, lines
from tests.agentspace.json_door import Frame, json_door


def session(name: str) -> Frame:
    when = {"createdAt": "2026-01-02T03:04:05.678Z", "updatedAt": "2026-01-02T03:04:06.678Z"}
    return {
        "sessionId": name,
        "model": "m",
        "messageCount": 2,
        "title": "a\x1btitle",
        "systemPrompt": "be kind",
        **when,
    }


async def test_list() -> None:
    async with json_door() as door:
        page = {"type": "session.list", "sessions": [session("a"), session("b")], "nextPageToken": ""}
        door.replies["session.list"] = page
        shown = await call("sessions", "ls", "-n", "1", "--url", door.url)
        assert "atitle" in shown.stdout
        assert len(shown.stdout.splitlines()) == 2
        [frame] = lines((await call("sessions", "ls", "--json", "--url", door.url)).stdout)
        assert [found["sessionId"] for found in frame["sessions"]] == ["a", "b"]


async def test_show() -> None:
    async with json_door() as door:
        message = {"role": "user", "messageId": "1", "blocks": [{"kind": "text", "text": "hi\x1b"}]}
        door.replies["session.get"] = {"type": "session.get", "session": session("a")}
        door.replies["session.history"] = {"type": "session.history", "messages": [message], "nextPageToken": ""}
        shown = (await call("sessions", "show", "a", "--url", door.url)).stdout
        assert "[system]\nbe kind" in shown
        assert shown.endswith("[user]\nhi\n")
        frames = lines((await call("sessions", "show", "a", "--json", "--url", door.url)).stdout)
        assert frames[1] == message


async def test_show_marks_what_is_no_complete_answer() -> None:
    def message(name: str, role: str, turn: str, complete: bool = True) -> Frame:
        block = {"kind": "text", "text": name, "complete": complete}
        return {"role": role, "messageId": name, "turnId": turn, "blocks": [block]}

    async with json_door() as door:
        messages = [
            *(message("q1", "user", "1"), message("a1", "assistant", "1", complete=False)),
            *(message("q2", "user", "2"), message("a2", "assistant", "2")),
            message("q3", "user", "3"),
            *(message("q4", "user", "4"), message("a4", "assistant", "4")),
            message("a5", "assistant", "of a copied session", complete=False),
        ]
        door.turns = [
            {"turnId": "4", "state": "completed", "answerMessageId": "a4"},
            {"turnId": "3", "state": "failed"},
            {"turnId": "2", "state": "refused", "answerMessageId": "a2"},
            {"turnId": "1", "state": "cancelled", "answerMessageId": "a1"},
        ]
        door.replies["session.get"] = {"type": "session.get", "session": session("a")}
        door.replies["session.history"] = {"type": "session.history", "messages": messages, "nextPageToken": ""}
        shown = (await call("sessions", "show", "a", "--url", door.url)).stdout
    said = [part.splitlines() for part in shown.split("\n\n")[2:]]
    assert said == [
        ["[user]", "q1"],
        ["[assistant]", "a1", "[the answer was cancelled]"],
        ["[user]", "q2"],
        ["[assistant]", "a2", "[the model refused to answer]"],
        ["[user]", "q3", "[the answer failed]"],
        ["[user]", "q4"],
        ["[assistant]", "a4"],
        ["[assistant]", "a5", "[the answer is incomplete]"],
    ]


async def test_remove() -> None:
    async with json_door() as door:
        door.replies["session.delete"] = {"type": "session.delete", "session": session("a")}
        shown = await call("sessions", "rm", "a", "k", "--url", door.url)
        assert shown.stdout == "removed a\nremoved a\n"
        assert [frame["sessionId"] for frame in door.received] == ["a", "k"]
        assert (await call("sessions", "rm")).exit_code == 2
