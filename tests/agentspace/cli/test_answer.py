"""Printing an answer."""

import pytest

from agentspace.cli.answer import Outcome, Printer, raise_failure
from agentspace.cli.options import Failure


def delta(text: str) -> dict[str, str]:
    return {"type": "chat.stream.delta", "delta": text}


@pytest.mark.parametrize("pieces", [["a", "b"], ["a", "b\n"], ["a", "b\n", ""]])
def test_the_last_line_is_ended_once(capsys: pytest.CaptureFixture[str], pieces: list[str]) -> None:
    printer = Printer(as_json=False, terminal=False)
    for piece in pieces:
        printer.show(delta(piece))
    printer.show({"type": "chat.stream.end"})
    printer.close_line()
    assert capsys.readouterr().out == "ab\n"


def test_notes_stay_out_of_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(as_json=True, terminal=False)
    printer.show({"type": "connection.lost"})
    printer.note("a\x1bb")
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == "[connection lost, trying again]\n[ab]\n"


def test_how_a_turn_fared_is_the_exit_code() -> None:
    raise_failure(Outcome(end={"type": "chat.stream.end"}), as_json=False)
    failed = Outcome(end={"type": "error", "code": "UPSTREAM_AUTH", "message": "no", "turnId": "t"})
    with pytest.raises(Failure) as caught:
        raise_failure(failed, as_json=False)
    assert caught.value.exit_code == 5
    with pytest.raises(SystemExit) as left:
        raise_failure(failed, as_json=True)
    assert left.value.code == 5
    with pytest.raises(SystemExit) as left:
        raise_failure(Outcome(end={"type": "chat.stream.end"}, cancelled=True), as_json=False)
    assert left.value.code == 130
