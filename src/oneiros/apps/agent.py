"""The agent loop: a program that has a model call tools until it answers.

It is a pure function of the process's state. Each step reads the turn (`turn.py`) anew and says
the one thing that comes next, so that a process goes on after any crash, and any fork, with nothing
but its journal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oneiros.apps import prompts
from oneiros.apps.looking import looks, seen
from oneiros.apps.named import named
from oneiros.apps.prompts import Notice
from oneiros.apps.repetition import repetition
from oneiros.apps.tool_choice import choose_tools, needed_tools
from oneiros.apps.turn import Round, Turn, read_turn
from oneiros.apps.written_calls import begins_call
from oneiros.kernel.handles import CAPABILITY
from oneiros.kernel.program import Action, Call, Exit, Generate, Note, Receive, View
from oneiros.kernel.state import ProcessState
from oneiros.memory.pages import PageKind
from oneiros.model.answer_calls import ANSWER_NAME
from oneiros.model.tool_call_parser import OPENING

_RECOUNTED = 8  # calls that an account without a model names
_LONGEST_RECOUNTED = 120  # characters of each
_VARIED = 0.8  # the temperature of a model that repeats what fails
_MEMORY = ("recall", "read_document")  # tools that bring what left the context
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Agent:
    """A program for processes that somebody talks to, and for those that do one task for another.

    A process without a parent goes on to wait for the next message after an answer; one with a
    parent ends with it.
    """

    # Models that call and answer well when each reply has to be a call, and badly when it may be;
    # others are guided so after their first call that was written as text.
    guided: frozenset[str] = frozenset({"qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b"})
    most_rounds: int = 50  # of calls, for one message
    most_failures: int = 6  # of rounds of calls, one after the other
    most_retries: int = 2  # of replies that failed, were empty or cut, in a turn
    account_tokens: int = 256  # that a process may take to say how far it got

    def step(self, view: View) -> Action:
        """What comes next: by the first of these rules that applies.

        A small model is shown what the message names. An account that was asked for ends the turn.
        Calls are made. An answer ends the turn. What went wrong is said to the model, and asked for
        again. New messages of the user are read. When a budget ends, or the model repeats itself in
        spite of a notice, an account is asked for. Otherwise the model goes on.
        """
        state, turn = view.state, read_turn(view)
        if not turn.asked or Notice.NO_ANSWER in turn.latest_notices:
            return Receive()
        if state.model in self.guided and (look := _look(view, turn)) is not None:
            return look
        accounting = turn.count(Notice.ACCOUNT) > 0
        last, fresh = turn.last, not turn.latest_notices
        if accounting:
            return self._account(view, turn)
        if last is not None and last.unanswered:
            return Call(requests=last.unanswered)
        if (missing := _missing(state, turn)) > 0:
            return self._failed(state, turn, missing)
        if last is not None and fresh and not last.requests:
            wrong = _wrong(state, last)
            if wrong is None:
                return _answer(state, last.text)
            if turn.count(*_RETRIES) >= self.most_retries:
                return Note(text=prompts.account("your replies come to nothing"))
            return Note(text=wrong)
        if any(mail.sender == "user" for mail in state.inbox[:1]):
            return Receive()
        why = self._reason_to_stop(state, turn)
        if why is not None:
            return Note(text=why)
        return self._generate(view, turn)

    def _generate(self, view: View, turn: Turn, *, account: bool = False) -> Generate:
        tools = offered_tools(view)
        limit = self.account_tokens if account else None
        guided = view.state.model in self.guided or any(one.written for one in turn.rounds)
        if account and not (guided and tools):
            return Generate(tool_choice="none", max_tokens=limit)
        if turn.last is not None and turn.last.malformed is not None and not account:
            wanted = turn.last.malformed
            tools = tuple(dict.fromkeys((*tools, wanted)))
            return Generate(tools=tools, tool_choice=wanted, parallel=False)
        if not (guided and tools):
            return Generate(tools=tools)
        if account:  # with the same tools: others would cost the whole prefix
            return Generate(
                tools=(*tools, ANSWER_NAME),
                tool_choice=ANSWER_NAME,
                parallel=False,
                max_tokens=limit,
            )
        return self._guided(view, tools, turn)

    def _guided(self, view: View, tools: tuple[str, ...], turn: Turn) -> Generate:
        """A reply that has to be a call, of `answer` at the end.

        Small models take a failure for an answer, and what worked for what is still to be done.
        So there is no answer right after the first failures, nor at first while something that the
        message names was not dealt with. A question that has brought back what was said before, and
        for which no tool offers itself, is answered: it was searched for already. Who makes the
        same calls again has changed what was to be changed, and answers; or takes other tools,
        where these failed or something is left to do; or has read what was to be read, or should
        read something else, which chance decides.
        """
        if not turn.rounds and _is_answered(view, turn):
            return Generate(tools=(*tools, ANSWER_NAME), tool_choice=ANSWER_NAME, parallel=False)
        failed = turn.last is not None and turn.last.failed
        neglects = len(turn.rounds) <= self.most_retries and bool(turn.neglected)
        if turn.seen and not turn.rounds:  # who is told to do something has to do it
            neglects = neglects or "?" not in turn.request
        if Notice.REPEATS not in turn.latest_notices:
            early = failed and sum(one.failed for one in turn.rounds) <= self.most_retries
            early = early or neglects
            return Generate(
                tools=tools if early else (*tools, ANSWER_NAME),
                tool_choice="required",
                parallel=False,
                # A reply that went on until its limit would do so again.
                temperature=_VARIED if Notice.CUT in turn.latest_notices else None,
            )
        tools = (*tools, ANSWER_NAME)
        if failed or neglects:
            others = _others(tools, turn)
            return Generate(
                tools=others, tool_choice="required", parallel=False, temperature=_VARIED
            )
        if _changes(view, turn):
            return Generate(tools=tools, tool_choice=ANSWER_NAME, parallel=False)
        return Generate(tools=tools, tool_choice="required", parallel=False, temperature=_VARIED)

    def _reason_to_stop(self, state: ProcessState, turn: Turn) -> str | None:
        """A notice to give before the model may go on; None: it may."""
        if state.told:
            return prompts.account("the budget is nearly used up")
        if len(turn.rounds) >= self.most_rounds:
            return prompts.account(f"there were {len(turn.rounds)} rounds of calls")
        failed = turn.rounds[-self.most_failures :]
        if len(failed) == self.most_failures and all(one.failed for one in failed):
            return prompts.account(f"the last {len(failed)} calls failed")
        what = repetition([one.outcome for one in turn.rounds if one.requests])
        if what is None or Notice.REPEATS in turn.latest_notices:
            return None
        if turn.count(Notice.REPEATS):
            return prompts.account("you repeat yourself")
        fails = turn.last is not None and turn.last.failed
        return prompts.repeats(what, failed=fails, neglected=turn.neglected)

    def _account(self, view: View, turn: Turn) -> Action:
        """Ask for the account, or end with it."""
        state = view.state
        given = Notice.ACCOUNT not in turn.latest_notices
        if not given and _missing(state, turn) <= 0:
            return self._generate(view, turn, account=True)
        said = turn.last.text.strip() if given and turn.last is not None else ""
        return Receive() if said and _goes_on(state) else _given_up(state, said or _recounted(turn))

    def _failed(self, state: ProcessState, turn: Turn, missing: int) -> Action:
        """Nothing came of the last reply."""
        if state.parent is None and state.last_reason == "interrupted":
            return Receive()
        if turn.latest_notices.count(Notice.FAILED) < self.most_retries:
            return Note(text=prompts.failed())
        why = f"Generating a reply failed {state.failures} times, for reasons that the log has."
        return _given_up(state, f"{why} {_recounted(turn)}")


def _others(tools: tuple[str, ...], turn: Turn) -> tuple[str, ...]:
    """Without the tools that were called last: who does the same again and again goes on so."""
    called = {call.tool for call in turn.last.requests} if turn.last is not None else set()
    return tuple(name for name in tools if name not in called) or tools


def _is_answered(view: View, turn: Turn) -> bool:
    """Whether what came back with a question is all that could be found for it."""
    request = turn.request
    if not turn.reminded or turn.seen or turn.neglected or not request.rstrip().endswith("?"):
        return False
    words = set(_WORD.findall(request.lower()))
    if any(tool.name.lower() in words for tool in view.tools):
        return False
    return {*needed_tools(request, view.tools)} <= {*_MEMORY}


def _look(view: View, turn: Turn) -> Action | None:
    """What comes before the first reply: calls that look at what the message names."""
    if turn.rounds or turn.seen or turn.notices or view.state.quarantine:
        return None  # in quarantine nothing is shown unasked
    requests = looks(named(turn.request), {tool.name for tool in view.tools})
    if requests and not turn.looked:
        return Call(requests=tuple(requests.values()))
    results = zip(requests, turn.looked, strict=False)
    found = seen(results, python="python" in offered_tools(view))
    return Note(text=prompts.seen(found, turn.request)) if found else None


def _changes(view: View, turn: Turn) -> bool:
    """Whether the last calls were made to change something: then it is changed."""
    called = {call.tool for call in turn.last.requests} if turn.last is not None else set()
    return any(tool.contract.effects for tool in view.tools if tool.name in called)


_RETRIES = (Notice.EMPTY, Notice.CUT, Notice.MALFORMED)


def offered_tools(view: View) -> tuple[str, ...]:
    """The tools for all that was asked in a conversation, its evicted part included.

    Marks and documents in the context speak of tools that read what they stand for, and so do
    handles, which only processes in quarantine have.
    """
    state = view.state
    pages = sorted((*state.evicted, *state.pages), key=lambda page: page.id)
    requests = [view.message(page)["content"] for page in pages if page.kind is PageKind.USER]
    others = [tool for tool in view.tools if tool.capability != CAPABILITY]
    first = [tool.name for tool in view.tools if tool.capability == CAPABILITY and state.quarantine]
    chosen = dict.fromkeys((*first, *choose_tools(requests, others)))
    there = {tool.name for tool in view.tools}
    spoken_of = (("recall", state.evicted), ("read_document", state.documents))
    return tuple(chosen | dict.fromkeys(name for name, why in spoken_of if why and name in there))


def _missing(state: ProcessState, turn: Turn) -> int:
    """Replies that failed and that the model was not told of."""
    return state.failures - turn.latest_notices.count(Notice.FAILED)


def _wrong(state: ProcessState, reply: Round) -> str | None:
    """What to say about a reply without calls; None: it is an answer."""
    if state.last_reason == "length" and _is_cut_call(reply.text):
        return prompts.cut()
    if reply.malformed is not None:
        return prompts.malformed(reply.malformed)
    return None if reply.text.strip() else prompts.empty()


def _is_cut_call(text: str) -> bool:
    return not text.strip() or any(mark in text for mark in OPENING.values()) or begins_call(text)


def _answer(state: ProcessState, text: str) -> Action:
    if state.parent is None:
        return Receive()
    if state.last_reason in ("length", "interrupted", "cancelled"):
        return _given_up(state, f"{text}\n[The answer ends here: {state.last_reason}.]")
    return Exit(result=text)


def _goes_on(state: ProcessState) -> bool:
    """Whether the process may take another message after one that came to nothing."""
    return state.parent is None and not state.told


def _given_up(state: ProcessState, text: str) -> Action:
    """End without an answer, or say to the person who waits for one that there is none."""
    if _goes_on(state):
        return Note(text=prompts.no_answer(text))
    return Exit(result=text, status="budget" if state.told else "failed")


def _recounted(turn: Turn) -> str:
    """An account without a model: the last calls, and how they ended."""
    calls = [
        f"{call.tool}({_brief(call.arguments)}): {_brief(one.results.get(call.model_call, 'open'))}"
        for one in turn.rounds
        for call in one.requests
    ]
    if not calls:
        return "It ended before anything was done."
    left = (
        f"{len(calls)} calls were made; the last: " if len(calls) > _RECOUNTED else "Calls made: "
    )
    return left + "; ".join(calls[-_RECOUNTED:])


def _brief(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_RECOUNTED else f"{text[:_LONGEST_RECOUNTED]}…"
