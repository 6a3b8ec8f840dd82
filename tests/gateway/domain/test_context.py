"""What may be sent to a model: always in order, always complete, always ending with the question."""

from hypothesis import given
from hypothesis import strategies as st

from agentspace.v1 import message_pb2
from gateway.domain.context import (
    ASSISTANT,
    SECTION_NAMES,
    SUMMARY_INTRODUCTION,
    SUMMARY_REPLY,
    USER,
    PromptMessage,
    sections,
    sendable,
)
from gateway.domain.message import ContentBlock, Message

KINDS = [kind for kind in message_pb2.BlockKind.values() if kind]
TEXT = message_pb2.BLOCK_KIND_TEXT


def message(number: int, role: int, text: str, turn: str) -> Message:
    return Message(f"msg_{number}", "s", turn, role, (ContentBlock(TEXT, text),), "", number, number)


def asked(number: int, text: str, turn: str) -> Message:
    return message(number, USER, text, turn)


def answered(number: int, text: str, turn: str) -> Message:
    return message(number, ASSISTANT, text, turn)


def pairs(*texts: str) -> list[PromptMessage]:
    return [PromptMessage("assistant" if index % 2 else "user", text) for index, text in enumerate(texts)]


blocks = st.builds(ContentBlock, st.sampled_from(KINDS), st.text(" ab", max_size=3), complete=st.booleans())
histories = st.lists(
    st.tuples(
        st.sampled_from([USER, ASSISTANT]), st.sampled_from(["", "t1", "t2", "t3", "t4"]), st.lists(blocks, max_size=3)
    ),
    max_size=12,
).map(
    lambda rows: [
        Message(f"msg_{number}", "s", turn, role, tuple(content), "", number, number)
        for number, (role, turn, content) in enumerate(rows, 1)
    ]
)


@given(histories, st.booleans())
def test_any_history_gives_a_prompt_that_can_be_sent(history: list[Message], stored: bool) -> None:
    question = asked(len(history) + 1, "and now?", "t9")
    prompt = sendable([*history, question] if stored else history, question)
    assert [entry.role for entry in prompt] == ["assistant" if index % 2 else "user" for index in range(len(prompt))]
    assert all(entry.text.strip() for entry in prompt)
    assert prompt[-1] == PromptMessage("user", "and now?")
    assert sendable(history) == prompt[:-1]


def test_the_stored_conversation_is_sent_as_it_is() -> None:
    history = [asked(1, "one?", "t1"), answered(2, "one.", "t1"), asked(3, "two?", "t2"), answered(4, "two.", "t2")]
    question = asked(5, "three?", "t3")
    assert sendable([*history, question], question) == pairs("one?", "one.", "two?", "two.", "three?")


def test_a_question_without_an_answer_is_left_out() -> None:
    history = [asked(1, "lost?", "t1"), asked(2, "two?", "t2"), answered(3, "two.", "t2"), asked(4, "lost?", "t3")]
    assert sendable(history, asked(5, "now?", "t4")) == pairs("two?", "two.", "now?")


def test_queued_messages_keep_their_own_answers() -> None:
    first, second, third = asked(1, "one?", "t1"), asked(2, "two?", "t2"), asked(3, "three?", "t3")
    history = [first, second, third, answered(4, "one.", "t1")]
    assert sendable(history, second) == pairs("one?", "one.", "two?")
    history.append(answered(5, "two.", "t2"))
    assert sendable(history, third) == pairs("one?", "one.", "two?", "two.", "three?")


def test_the_question_is_sent_once_though_the_history_has_it() -> None:
    question = asked(1, "one?", "t1")
    assert sendable([question], question) == sendable([], question) == pairs("one?")


def test_of_an_answer_only_text_is_sent_cut_short_or_not() -> None:
    answer = Message(
        "msg_2",
        "s",
        "t1",
        ASSISTANT,
        (
            ContentBlock(message_pb2.BLOCK_KIND_THINKING, "hm", complete=False),
            ContentBlock(message_pb2.BLOCK_KIND_TOOL_USE, "{", tool_use_id="call_1", complete=False),
            ContentBlock(TEXT, "half an", complete=False),
        ),
        "m",
        2,
        2,
    )
    assert sendable([asked(1, "one?", "t1"), answer]) == pairs("one?", "half an")


def test_an_answer_that_was_refused_is_left_out_with_its_question() -> None:
    answer = Message("msg_2", "s", "t1", ASSISTANT, (ContentBlock(TEXT, "First you", refused=True),), "m", 2, 2)
    history = [asked(1, "how?", "t1"), answer, asked(3, "else?", "t2"), answered(4, "So.", "t2")]
    assert sendable(history, asked(5, "now?", "t3")) == pairs("else?", "So.", "now?")


def test_a_summary_is_sent_whatever_follows_it() -> None:
    summary = asked(1, "They met.", "")
    start = [f"{SUMMARY_INTRODUCTION}\n\nThey met.", SUMMARY_REPLY]
    assert sendable([summary]) == pairs(*start)
    assert sendable([summary, asked(2, "lost?", "t1")], asked(3, "now?", "t2")) == pairs(*start, "now?")
    history = [summary, asked(2, "one?", "t1"), answered(3, "one.", "t1")]
    assert sendable(history, asked(4, "now?", "t2")) == pairs(*start, "one?", "one.", "now?")


def test_sections_show_what_would_be_sent_under_every_name() -> None:
    history = [asked(1, "one?", "t1"), answered(2, "one.", "t1"), asked(3, "lost?", "t2")]
    found = {section.name: section.content for section in sections("Be brief.", history)}
    assert tuple(found) == SECTION_NAMES
    assert found["system_prompt"] == "Be brief."
    assert found["history"] == "user: one?\n\nassistant: one."
    assert found["memory"] == found["skills"] == found["tools"] == ""
