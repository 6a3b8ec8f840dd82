"""What a model is sent: the system prompt and a history that any provider accepts.

`sendable` proves role order and pairing before each dispatch: the messages alternate, begin with the user, hold no
empty text, no tool call without its result, and nothing of an answer that was refused. What cannot be sent is left
out together with the question it belongs to, so that no question stands unanswered in what is sent next. A user
message without a turn is the summary that a compaction put in place of older messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agentspace.v1 import message_pb2
from gateway.domain.message import Message

USER = message_pb2.ROLE_USER
ASSISTANT = message_pb2.ROLE_ASSISTANT
TEXT = message_pb2.BLOCK_KIND_TEXT

SUMMARY_INTRODUCTION = "Summary of the conversation so far:"
SUMMARY_REPLY = "Understood. I will go on from there."

SECTION_NAMES = ("system_prompt", "history", "memory", "skills", "tools")


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message as a provider is sent it. `role` is "user" or "assistant"."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """One named part of the context, as text."""

    name: str
    content: str


def sendable(history: Sequence[Message], question: Message | None = None) -> list[PromptMessage]:
    """What lies before `question` in the history as a prompt, then `question`, the user message to answer now.

    A user message is sent if its turn has an answer with text, or if it is the question. The two are paired by turn
    and not by place, because a message that waited in the queue was stored before the answer to the one ahead of it. A
    summary is sent as a question with a set answer, so that the order of roles holds whatever follows it.
    """
    answers = {message.turn_id: _text(message) for message in history if message.role == ASSISTANT}
    prompt: list[PromptMessage] = []
    for message in history:
        if question is not None and message.message_id == question.message_id:
            break
        text = _text(message)
        if message.role != USER or not text:
            continue
        if not message.turn_id:
            prompt.append(PromptMessage("user", f"{SUMMARY_INTRODUCTION}\n\n{text}"))
            prompt.append(PromptMessage("assistant", SUMMARY_REPLY))
        elif answer := answers.get(message.turn_id):
            prompt.append(PromptMessage("user", text))
            prompt.append(PromptMessage("assistant", answer))
    if question is not None:
        prompt.append(PromptMessage("user", _text(question)))
    return prompt


def sections(system_prompt: str, history: Sequence[Message]) -> list[Section]:
    """The context that would be sent before the next question, under the original's section names."""
    text = "\n\n".join(f"{message.role}: {message.text}" for message in sendable(history))
    contents = {"system_prompt": system_prompt, "history": text}
    return [Section(name, contents.get(name, "")) for name in SECTION_NAMES]


def _text(message: Message) -> str:
    text = "".join(block.text for block in message.blocks if block.kind == TEXT and not block.refused)
    return text if text.strip() else ""
