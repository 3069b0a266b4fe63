"""What a state keeps for decisions: readings, and what was asked and done for one request."""

from __future__ import annotations

from hypothesis import given, settings

from oneiros.kernel import events as e
from oneiros.kernel.state import STATE, ProcessState, apply
from tests.kernel.histories import History, histories


def states(history: History) -> list[tuple[e.Event, ProcessState]]:
    """Each event with the state after it."""
    state, after = None, []
    for seq, event in enumerate(history.events, 1):
        state = apply(state, history.pid, seq, event, history.blobs.__getitem__)
        after.append((event, state))
    return after


def since_the_user_spoke(history: History) -> list[e.Event]:
    """The events after the last message of the user's that came into the context."""
    left: list[e.Event] = []
    before: ProcessState | None = None
    for event, state in states(history):
        match event:
            case e.Received(pages=pages):
                said = any(page.sender == "user" for page in pages)
            case e.CallEnded(received=count) if before is not None:
                said = any(mail.sender == "user" for mail in before.inbox[:count])
            case _:
                said = False
        left = [] if said else [*left, event]
        before = state
    return left


@settings(max_examples=40)
@given(histories())
def test_every_call_that_brought_something_is_a_reading_with_its_own_label(
    history: History,
) -> None:
    intended = {one.call_id: one for one in history.events if isinstance(one, e.CallIntended)}
    ended = [
        event
        for event in history.events
        if isinstance(event, e.CallEnded) and event.outcome in ("done", "failed", "unknown")
    ]
    readings = history.state.readings
    assert [reading.call_id for reading in readings] == [event.call_id for event in ended]
    for reading, event in zip(readings, ended, strict=True):
        call = intended[event.call_id]
        assert (reading.tool, reading.arguments) == (call.tool, call.arguments)
        assert (reading.data, reading.held, reading.page) == (event.data, event.held, event.page.id)
        assert reading.own == (event.page.label if event.own is None else event.own)
        assert reading.clean == call.label.trusted


@settings(max_examples=40)
@given(histories())
def test_questions_and_refusals_count_since_the_users_last_message(history: History) -> None:
    events = since_the_user_spoke(history)
    meanings = {one.call_id: one.meaning for one in history.events if hasattr(one, "meaning")}
    asked: set[str] = set()
    refused: set[str] = set()
    for event in events:
        match event:
            case e.CallIntended(decision="ask", meaning=meaning):
                asked.add(meaning)
            case e.CallAnswered(allowed=False, call_id=call_id):
                refused.add(meanings[call_id])
            case e.Signalled(signal="continue"):
                asked, refused = set(), set()
    state = history.state
    assert (state.asked, state.refused) == (asked, refused)


@settings(max_examples=40)
@given(histories())
def test_what_was_done_is_known_for_good(history: History) -> None:
    allowed = [
        event.call_id
        for event in history.events
        if (isinstance(event, e.CallIntended) and event.decision == "allow")
        or (isinstance(event, e.CallAnswered) and event.allowed)
    ]
    assert [call.call_id for call in history.state.made] == allowed


@settings(max_examples=40)
@given(histories())
def test_private_is_what_others_sent_that_not_everybody_may_read(history: History) -> None:
    pages = [
        page
        for event in history.events
        if isinstance(event, e.Started | e.Received)
        for page in event.pages
        if page.sender != "user"
    ]
    limited = [page for page in pages if page.label.readers is not None]
    assert history.state.private == any(
        not page.label.origins <= {"user", "system", "app:notes"} for page in limited
    )


def test_states_of_before_do_not_say_what_was_private() -> None:
    began = e.Started(owner="ada", app="assistant", program="agent", model="m")
    state = apply(None, 1, 1, began, lambda blob: b"")
    known = STATE.dump_python(state, mode="json")
    new = ("private", "readings", "asked", "refused", "made", "grants", "quarantine")
    for name in new:
        known.pop(name)
    old = STATE.validate_python(known)
    assert old.private and not state.private
    assert (old.readings, old.made, old.asked) == ((), (), frozenset())
