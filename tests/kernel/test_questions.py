"""What processes ask people is text that can be looked at, wherever it is shown."""

from oneiros.kernel.events import Budget
from oneiros.kernel.label import PUBLIC
from oneiros.kernel.questions import questions_of
from oneiros.kernel.state import CallPhase, CallState, ProcessState


def asking(call_id: str, why: str, meaning: str) -> CallState:
    phase: CallPhase = "asked"
    return CallState(
        call_id=call_id,
        tool="send",
        arguments="",
        phase=phase,
        label=PUBLIC,
        model_call=None,
        why=why,
        meaning=meaning,
    )


def test_questions_hold_no_characters_that_are_obeyed_or_not_seen() -> None:
    texts = {
        "one": "Send\x1b[2K\rto \u202emoc.live\u2066 \U000e0041?",
        "two": "Größe 👨\u200d👩?\n",
    }
    state = ProcessState(
        pid=1,
        seq=1,
        owner="ann",
        app="assistant",
        program="agent",
        model="small",
        title="",
        parent=None,
        priority=0,
        budget=Budget(),
        capabilities=frozenset(),
        calls=(asking("1.1", "one", "a"), asking("1.2", "two", "b")),
    )
    first, second = questions_of(state, texts.__getitem__)
    assert first.text == "Send␛[2K␍to <U+202E>moc.live<U+2066> <U+E0041>?"
    assert second.text == texts["two"]
