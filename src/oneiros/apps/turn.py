"""What happened in a process since it was last asked for something, read from its context."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from oneiros.apps.looking import is_partly_seen
from oneiros.apps.named import named, not_dealt_with
from oneiros.apps.prompts import Notice, again, notice_of
from oneiros.apps.repetition import Outcome
from oneiros.apps.written_calls import WrittenCall, written_calls
from oneiros.kernel.program import ToolRequest, View
from oneiros.kernel.schemas import misfit
from oneiros.memory.pages import Page, PageKind

# The kernel's word for a failed call, or the last line of a program's traceback.
_ERROR = re.compile(r"\AError: |^\w*Error: .*\Z", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A reply, and what came of its calls."""

    text: str
    requests: tuple[ToolRequest, ...] = ()
    results: Mapping[str | None, str] = field(default_factory=dict)  # by the calls' ids
    written: bool = False  # whether its calls, or what should have been one, are in its text
    malformed: str | None = None  # the tool of a call that cannot be carried out
    notices: tuple[Notice, ...] = ()  # of the agent, after it

    @property
    def unanswered(self) -> tuple[ToolRequest, ...]:
        """Calls that are still to be made."""
        return tuple(call for call in self.requests if call.model_call not in self.results)

    @property
    def failed(self) -> bool:
        """Whether its calls brought nothing but errors."""
        return bool(self.results) and all(map(_ERROR.search, self.results.values()))

    @property
    def outcome(self) -> Outcome:
        """For comparison with other rounds."""
        return Outcome(
            frozenset(
                (call.tool, _canonical(call.arguments), self.results.get(call.model_call, ""))
                for call in self.requests
            ),
            self.text.strip(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Everything since the last message, also what was evicted."""

    asked: bool  # whether there is anything that could be answered
    request: str = ""  # the message that it begins with
    looked: tuple[str, ...] = ()  # results of the program's own calls
    seen: str = ""  # what of them was shown to the model
    reminded: bool = False  # whether something came back unasked that was said before
    rounds: tuple[Round, ...] = ()
    notices: tuple[Notice, ...] = ()  # of the agent, before the first reply

    @property
    def last(self) -> Round | None:
        return self.rounds[-1] if self.rounds else None

    @property
    def latest_notices(self) -> tuple[Notice, ...]:
        """Those since the last reply."""
        return self.rounds[-1].notices if self.rounds else self.notices

    @property
    def neglected(self) -> tuple[str, ...]:
        """Files and addresses that the message names, and no call that worked has dealt with."""
        names = named(self.request)
        if not names:
            return ()
        said = [
            text
            for one in self.rounds
            for call in one.requests
            if not _ERROR.search(result := one.results.get(call.model_call, ""))
            for text in (call.arguments, result)
        ]
        partly = [name for name in names if is_partly_seen(name, self.seen)]
        left = {*not_dealt_with(names, [*said, self.seen]), *not_dealt_with(partly, said)}
        return tuple(name for name in names if name in left)

    def count(self, *notices: Notice) -> int:
        """How often the agent gave one of these notices."""
        given = [*self.notices, *(notice for one in self.rounds for notice in one.notices)]
        return sum(notice in notices for notice in given)


def read_turn(view: View) -> Turn:
    """The last turn of a process.

    What left the context counts as well: a turn that is longer than that has to end, too.
    """
    state = view.state
    pages = sorted((*state.evicted, *state.pages), key=lambda page: page.id)
    starts = [index for index, page in enumerate(pages) if page.kind is PageKind.USER]
    pages = pages[starts[-1] if starts else 0 :]
    request = view.message(pages[0])["content"] if starts else ""
    turn = Turn(asked=any(page.kind in _ASKING for page in pages), request=request)
    # Calls that are made at once end in any order.
    for page in sorted(pages, key=_made):
        turn = _with(turn, page, view)
    return turn


def _made(page: Page) -> tuple[int, int, str]:
    if page.kind is not PageKind.VALUE or page.call_id is None:
        return page.id, 0, ""
    return 0, len(page.call_id), page.call_id


_ASKING = (PageKind.USER, PageKind.ASSISTANT, PageKind.TOOL)


def _with(turn: Turn, page: Page, view: View) -> Turn:
    if page.kind is PageKind.ASSISTANT:
        return replace(turn, rounds=(*turn.rounds, _round(page, view)))
    if page.kind is PageKind.NOTICE:
        text = view.message(page)["content"]
        notice = notice_of(text)
        if notice is None:
            return turn
        if notice is Notice.SEEN:
            return replace(turn, seen=text.removesuffix(again(turn.request)))
        if turn.last is None:
            return replace(turn, notices=(*turn.notices, notice))
        return _with_last(turn, replace(turn.last, notices=(*turn.last.notices, notice)))
    if page.kind is PageKind.RECALLED:
        return replace(turn, reminded=True)
    if page.kind is PageKind.VALUE:
        return replace(turn, looked=(*turn.looked, view.message(page)["content"]))
    if page.kind is PageKind.TOOL and turn.last is not None:
        message = view.message(page)
        results = {**turn.last.results, message.get("tool_call_id"): message["content"]}
        return _with_last(turn, replace(turn.last, results=results))
    return turn


def _with_last(turn: Turn, last: Round) -> Turn:
    return replace(turn, rounds=(*turn.rounds[:-1], last))


def _round(page: Page, view: View) -> Round:
    message = view.message(page)
    text = message["content"]
    if page.calls:
        return Round(text=text, requests=_requests(message.get("tool_calls", ())))
    written = written_calls(text, {tool.name for tool in view.tools})
    malformed = next((call.tool for call in written if not _fits(call, view)), None)
    if malformed is not None:
        return Round(text=text, written=True, malformed=malformed)
    requests = tuple(
        ToolRequest(
            tool=call.tool, arguments=call.arguments or "{}", model_call=f"written-{page.id}-{n}"
        )
        for n, call in enumerate(written)
    )
    return Round(text=text, requests=requests, written=bool(requests))


def _requests(calls: Sequence[Mapping[str, object]]) -> tuple[ToolRequest, ...]:
    requests = []
    for call in calls:
        function = call.get("function")
        if isinstance(function, Mapping):
            arguments = function.get("arguments")
            requests.append(
                ToolRequest(
                    tool=str(function.get("name")),
                    arguments=arguments if isinstance(arguments, str) else json.dumps(arguments),
                    model_call=str(call.get("id")),
                )
            )
    return tuple(requests)


def _fits(call: WrittenCall, view: View) -> bool:
    """Whether a written call is one that its tool takes."""
    if call.arguments is None:
        return False
    schema = next(tool.parameters for tool in view.tools if tool.name == call.tool)
    return misfit(schema, json.loads(call.arguments)) is None


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments
