"""The agent loop: what a process does next, whatever its model says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.apps.agent import Agent, offered_tools
from oneiros.kernel import events as e
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.handles import CAPABILITY
from oneiros.kernel.program import Call, Exit, Generate, Note, Receive
from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import Tool
from oneiros.memory.context import SAID
from oneiros.memory.pages import Page, PageKind
from oneiros.model.answer_calls import ANSWER_NAME
from oneiros.model.chat_format import Message
from tests.apps.driver import Driver, Reply, tool
from tests.kernel.histories import History, histories

TOOLS = (tool("add"), tool("look"))


def scripted(*replies: Reply) -> Callable[[Sequence[Message], Generate], Reply]:
    """A model that gives these replies one after the other, and the last one for ever."""
    left = list(replies)

    def reply(messages: Sequence[Message], asked: Generate) -> Reply:
        return left.pop(0) if len(left) > 1 else left[0]

    return reply


def calls(*named: str, arguments: str = "{}", text: str = "") -> Reply:
    return Reply(text, tuple((name, arguments) for name in named))


def asked(*replies: Reply, parent: int | None = None, agent: Agent | None = None) -> Driver:
    """A process that was asked something, with a model that says these replies."""
    driver = Driver(agent or Agent(), TOOLS, scripted(*replies), parent=parent)
    driver.deliver("How many are there?")
    return driver


def test_a_process_that_was_asked_nothing_waits() -> None:
    driver = Driver(Agent(), TOOLS)
    assert driver.step() == Receive()
    assert driver.step() == Receive()


def test_calls_are_made_at_once_and_their_results_answered() -> None:
    driver = asked(calls("add", "look"), Reply("Three."))
    assert driver.run() == Receive()
    made = [action for action in driver.actions if isinstance(action, Call)]
    assert [[request.tool for request in call.requests] for call in made] == [["add", "look"]]
    assert driver.answer == "Three."


def test_a_child_ends_with_its_answer_and_the_others_wait() -> None:
    driver = asked(calls("add"), Reply("Three."), parent=1)
    assert driver.run() == Exit(result="Three.")
    driver = asked(Reply("Three."))
    driver.run()
    driver.deliver("And now?")
    driver.run()
    assert [kind for kind in map(type, driver.actions) if kind is Generate] == [Generate] * 2


def test_after_a_crash_only_the_calls_without_a_result_are_made() -> None:
    driver = asked(calls("add", "look"), Reply("Three."))
    while not isinstance(driver.program.step(driver), Call):
        driver.step()
    request = driver.program.step(driver)
    assert isinstance(request, Call)
    first = request.requests[0]
    driver.begin(first.tool, first.arguments, first.model_call)
    driver.end_call()
    again = driver.program.step(driver)
    assert again == Call(requests=request.requests[1:])


@pytest.mark.parametrize(
    "text",
    [
        'Let me see.\n```json\n{\n  "name": "add",\n  "arguments": {"x": "1"}\n}\n```',
        '{"name": "add", "parameters": {"x": "1"}}',
        '<tools>\n{"name": "add", "arguments": {"x": "1"}}\n</tools>\nThe result is 7.',
        '```json\n{"name": "add", "arguments": {"x": "1"}}\n```\nand then '
        '```json\n{"name": "look", "arguments": {"x": "7"}}\n```',
    ],
)
def test_a_call_that_is_written_as_text_is_made(text: str) -> None:
    driver = asked(Reply(text), Reply("Three."))
    driver.run()
    assert driver.calls == [("add", '{"x": "1"}')]
    assert driver.answer == "Three."


def test_calls_written_one_after_the_other_are_made_together() -> None:
    text = (
        '```json\n{"name": "add", "arguments": {}}\n```\n```json\n{"name": "look", "arguments": {}}'
    )
    driver = asked(Reply(text), Reply("Three."))
    driver.run()
    assert [name for name, _ in driver.calls] == ["add", "look"]


@pytest.mark.parametrize("arguments", ['{"x": "broken', '{"x": 5}', '"text"'])
def test_a_written_call_that_cannot_be_made_is_asked_for_again(arguments: str) -> None:
    driver = asked(
        Reply(f'{{"name": "add", "arguments": {arguments}}}'), calls("add"), Reply("Three.")
    )
    driver.run()
    generations = [action for action in driver.actions if isinstance(action, Generate)]
    assert [one.tool_choice for one in generations] == ["auto", "add", "required"]
    assert driver.calls == [("add", "{}")]


def test_calls_of_unknown_tools_in_a_text_are_text() -> None:
    driver = asked(Reply('{"name": "rm", "arguments": {}}'))
    assert driver.run() == Receive()
    assert not driver.calls


@pytest.mark.parametrize("length", [1, 2, 3])
def test_whoever_goes_round_in_circles_is_told_once_and_then_stopped(length: int) -> None:
    circle = [calls("add", arguments=json.dumps({"x": str(n)})) for n in range(length)]
    driver = asked(*circle * 20, parent=1)
    end = driver.run()
    assert isinstance(end, Exit)
    assert end.status == "failed"
    repeats, account = driver.notices()
    assert "You repeat yourself" in repeats
    assert "Call no tool" in account
    assert len(driver.calls) <= 3 * length + 1
    assert "add" in end.result  # the model said nothing, so its calls are told


def test_the_same_call_with_another_result_is_no_repetition() -> None:
    driver = asked(*[calls("look")] * 9, Reply("Three."))
    results = iter(range(100))
    driver.results = lambda name, arguments: str(next(results))
    driver.run()
    assert driver.notices() == []


def test_saying_the_same_again_and_again_is_noticed() -> None:
    replies = [calls("add", arguments=json.dumps({"x": str(n)}), text="Hm.") for n in range(9)]
    driver = asked(*replies)
    driver.run()
    assert "three times" in driver.notices()[0]


def test_failures_one_after_the_other_are_not_gone_on_with_for_ever() -> None:
    tries = [calls("add", arguments=json.dumps({"x": str(n)})) for n in range(20)]
    driver = asked(*tries, agent=Agent(most_failures=4))
    driver.results = lambda name, arguments: f"Error: {arguments} is no number"
    driver.run()
    assert len(driver.calls) == 4
    assert "4 calls failed" in driver.notices()[0]


def guided(*replies: Reply) -> Driver:
    return asked(*replies, agent=Agent(guided=frozenset({"scripted"})))


def generations(driver: Driver) -> list[Generate]:
    return [action for action in driver.actions if isinstance(action, Generate)]


def test_a_guided_model_cannot_answer_right_after_a_failure() -> None:
    driver = guided(calls("add"), calls("look"), Reply("Three."))
    results = iter(["Error: no.", "3"])
    driver.results = lambda name, arguments: next(results)
    driver.run()
    assert [ANSWER_NAME in one.tools for one in generations(driver)] == [True, False, True]
    assert driver.answer == "Three."


def test_a_guided_model_that_repeats_a_change_has_to_answer_and_one_that_reads_may_go_on() -> None:
    write = replace(tool("write"), contract=Contract(effects=frozenset({Effect.LOCAL})))
    for name, choice in (("add", "required"), ("write", ANSWER_NAME)):
        agent = Agent(guided=frozenset({"scripted"}))
        driver = Driver(agent, (*TOOLS, write), scripted(calls(name), calls(name), Reply("Three.")))
        driver.deliver("How many are there?")
        driver.run()
        last = generations(driver)[-1]
        assert last.tool_choice == choice and ANSWER_NAME in last.tools


@pytest.mark.parametrize("reply", [calls("add"), Reply("<tool_call>", reason="length")])
def test_a_guided_model_that_fails_alike_is_left_to_chance(reply: Reply) -> None:
    driver = guided(reply, reply, Reply("Three."))
    driver.results = lambda name, arguments: "ValueError: no."
    driver.run()
    assert generations(driver)[0].temperature is None
    assert any(one.temperature for one in generations(driver))


def test_after_an_account_a_person_can_go_on() -> None:
    circling = [calls("add")] * 3
    driver = asked(*circling, Reply("I got nowhere."), Reply("Three."))
    assert driver.run() == Receive()
    assert driver.answer == "I got nowhere."
    driver.deliver("Try again.")
    driver.run()
    assert driver.answer == "Three."


@pytest.mark.parametrize("parent", [None, 1])
def test_a_process_whose_budget_ends_says_how_far_it_got(parent: int | None) -> None:
    driver = asked(calls("add"), Reply("Two of three."), parent=parent)
    while not driver.calls:
        driver.step()
    driver.tell()
    end = driver.run()
    assert end == Exit(result="Two of three.", status="budget")
    last = [action for action in driver.actions if isinstance(action, Generate)][-1]
    assert (last.tools, last.tool_choice) == ((), "none")
    assert last.max_tokens is not None


def test_a_budget_that_ends_at_an_answer_takes_nothing_away() -> None:
    driver = asked(Reply("Three."), parent=1)
    while not any(page.kind is PageKind.ASSISTANT for page in driver.state.pages):
        driver.step()
    driver.tell()
    assert driver.run() == Exit(result="Three.")


@pytest.mark.parametrize("parent", [None, 1])
def test_failed_replies_are_tried_again_and_then_told(parent: int | None) -> None:
    driver = asked(Reply(fails=True), Reply(fails=True), Reply("Three."), parent=parent)
    driver.run()
    assert driver.answer == "Three."
    driver = asked(Reply(fails=True), parent=parent)
    end = driver.run()
    assert sum(isinstance(action, Generate) for action in driver.actions) == 3
    assert isinstance(end, Receive if parent is None else Exit)
    assert "failed 3 times" in driver.answer
    if parent is None:
        driver.model = scripted(Reply("Three."))
        driver.deliver("And now?")
        driver.run()
        assert driver.answer == "Three."


def test_who_interrupts_a_reply_is_listened_to() -> None:
    driver = asked(Reply("Three."))
    while not isinstance(driver.program.step(driver), Generate):
        driver.step()
    driver.append(e.GenerationStarted(seed=0, options=driver.put("{}"), limit=10))
    driver.append(e.GenerationEnded(page=None, reason="interrupted", used=e.Used()))
    assert driver.run() == Receive()
    assert not any(isinstance(action, Generate) for action in driver.actions)


@pytest.mark.parametrize(
    "text", ["", '<tool_call>\n{"name":', '```json\n{"name": "add", "arguments": {']
)
def test_a_call_that_a_limit_cut_is_asked_for_again_and_not_for_ever(text: str) -> None:
    driver = asked(Reply(text, reason="length"), Reply("Three."))
    driver.run()
    assert "cut" in driver.notices()[0]
    assert driver.answer == "Three."
    driver = asked(Reply(text, reason="length"), parent=1)
    end = driver.run()
    assert isinstance(end, Exit)
    assert end.status == "failed"


def test_a_text_that_a_limit_cut_says_so() -> None:
    end = asked(Reply("Three, and", reason="length"), parent=1).run()
    assert isinstance(end, Exit)
    assert end.status == "failed"
    assert end.result.startswith("Three, and\n[")


def test_a_person_who_writes_meanwhile_is_read_before_the_next_reply() -> None:
    driver = asked(calls("add"), Reply("Three."))
    while not driver.calls:
        driver.step()
    driver.deliver("a child's result", sender="process:7")
    assert isinstance(driver.program.step(driver), Generate)
    driver.append(e.Received(pages=(driver.page(PageKind.USER, {"role": "user", "content": "x"}),)))
    driver.deliver("Only the red ones.")
    assert driver.step() == Receive()
    driver.run()
    contents = [driver.message(page)["content"] for page in driver.state.pages]
    assert contents[-2:] == ["Only the red ones.", "Three."]


def test_a_model_that_writes_its_calls_as_text_has_to_call_from_then_on() -> None:
    driver = asked(Reply('{"name": "add", "arguments": {}}'), calls("look"), Reply("Three."))
    driver.run()
    first, *others = [action for action in driver.actions if isinstance(action, Generate)]
    assert (first.tool_choice, first.parallel) == ("auto", True)
    for one in others:
        assert one.tools == (*first.tools, ANSWER_NAME)
        assert (one.tool_choice, one.parallel) == ("required", False)
    assert driver.answer == "Three."


def test_a_model_that_is_known_for_it_has_to_call_at_once() -> None:
    driver = asked(calls("add"), Reply("Three."), agent=Agent(guided=frozenset({"scripted"})))
    driver.step()
    action = driver.step()
    assert isinstance(action, Generate)
    assert action.tool_choice == "required"
    assert action.tools[-1] == ANSWER_NAME
    driver.step()
    driver.tell()
    driver.run()
    account = [one for one in driver.actions if isinstance(one, Generate)][-1]
    assert (account.tools, account.tool_choice) == (action.tools, ANSWER_NAME)


# Random models and kernels. Whatever they do, the loop keeps its laws.

ARGUMENTS = st.sampled_from(["{}", '{"x": "1"}', '{"x": 2}', "no JSON"])
NAMES = st.sampled_from(["add", "look", "unknown"])
REPLIES = st.one_of(
    st.builds(
        Reply,
        text=st.sampled_from(
            ["", "Hm.", '{"name": "add", "arguments": {}}', '{"name": "look", "arg']
        ),
        calls=st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3).map(tuple),
        reason=st.sampled_from(["stop", "length", "interrupted"]),
    ),
    st.just(Reply(fails=True)),
)
HAPPENINGS = st.lists(st.sampled_from(["message", "child", "told", "forget"]), max_size=2)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(HAPPENINGS, REPLIES), max_size=25), st.sampled_from([None, 1]))
def test_laws_of_the_loop(history: list[tuple[list[str], Reply]], parent: int | None) -> None:
    left = list(history)
    driver = Driver(Agent(), TOOLS, parent=parent)
    driver.deliver("Begin.")

    def happen(name: str) -> None:
        match name:
            case "message":
                driver.deliver("More?")
            case "child":
                driver.deliver("A result.", sender="process:2")
            case "told":
                driver.tell()
            case "forget":
                driver.append(e.BudgetChanged(budget=e.Budget()))

    def reply(messages: Sequence[Message], asked: Generate) -> Reply:
        return left.pop(0)[1] if left else Reply("Done.")

    driver.model = reply
    generated_at = -1
    for _ in range(500):
        if driver.state.end is not None:
            break
        if left:
            for name in left[0][0]:
                happen(name)
            left[0] = ([], left[0][1])
        action = driver.program.step(driver)
        assert action == driver.program.step(driver)  # deterministic
        if isinstance(action, Generate):
            pages = driver.state.next_page
            assert pages > generated_at, "two replies without a new page between them"
            generated_at = pages
            assert set(action.tools) <= {one.name for one in TOOLS} | {ANSWER_NAME}
            if driver.state.told:
                assert action.tool_choice in ("none", ANSWER_NAME)
        if isinstance(action, Call):
            assert action.requests
        waits = isinstance(action, Receive) and not driver.state.inbox
        driver.step()
        if waits:
            if not left:
                break
            driver.deliver("And?")
    else:
        raise AssertionError(f"never at rest: {driver.actions[-5:]}")


@dataclass(frozen=True)
class Shown:
    """A history's state, as its program sees it."""

    history: History
    tools: tuple[Tool, ...] = TOOLS

    @property
    def state(self) -> ProcessState:
        return self.history.state

    def message(self, page: Page) -> Message:
        text = self.history.blobs[page.message].decode(errors="replace")
        calls = [
            {"id": f"{page.id}-{n}", "function": {"name": "add", "arguments": "{}"}}
            for n in range(page.calls)
        ]
        return {"role": "assistant", "content": text, "tool_calls": calls}

    def text(self, blob: str) -> str:
        return self.history.blobs[blob].decode(errors="replace")


@settings(max_examples=100, deadline=None)
@given(histories())
def test_whatever_happened_there_is_one_thing_to_do_next(history: History) -> None:
    view = Shown(history)
    action = Agent().step(view)
    assert Agent().step(view) == action
    if isinstance(action, Generate):
        assert set(action.tools) <= {"add", "look", ANSWER_NAME}
        assert not history.state.told or action.tool_choice in ("none", ANSWER_NAME)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=4),
    st.integers(0, 12),
    st.sampled_from([None, 1]),
)
def test_a_model_that_only_ever_calls_ends_once_its_budget_is_told(
    wanted: list[tuple[str, str]], after: int, parent: int | None
) -> None:
    results = iter(range(10_000))
    driver = asked(Reply("", tuple(wanted)), parent=parent)
    driver.results = lambda name, arguments: str(next(results))
    for _ in range(after):
        driver.step()
    driver.tell()
    end = driver.run(most=10)
    assert isinstance(end, Exit)
    assert end.status == "budget"
    assert end.result


def test_without_a_budget_a_model_that_only_calls_is_stopped_all_the_same() -> None:
    results = iter(range(10_000))
    driver = asked(calls("add"), parent=1, agent=Agent(most_rounds=7))
    driver.results = lambda name, arguments: str(next(results))
    driver.run()
    assert len(driver.calls) == 7


def test_a_turn_that_is_longer_than_the_context_is_stopped_all_the_same() -> None:
    driver = asked(calls("add"), parent=1, agent=Agent(most_rounds=20))
    driver.results = lambda name, arguments: f"result {len(driver.calls)}"
    while not isinstance(driver.step(), Exit):
        said = [page.id for page in driver.state.pages if page.kind in SAID]
        if len(said) > 8 and not driver.state.calls:
            text = {"role": "user", "content": "[Earlier messages left.]"}
            mark = driver.page(PageKind.MARK, text)
            driver.append(e.Evicted(pages=tuple(said[:-2]), mark=mark))
        assert len(driver.actions) < 100
    assert len(driver.calls) == 20
    assert "20 rounds" in driver.notices()[0]


def test_only_tools_that_the_process_may_call_are_offered() -> None:
    driver = asked(Reply("Three."))
    driver.tools = ()
    driver.run()
    assert all(not action.tools for action in driver.actions if isinstance(action, Generate))
    assert not any(isinstance(action, Note) for action in driver.actions)


def test_what_left_the_context_can_be_recalled_whatever_was_asked() -> None:
    tools = [tool(name) for name in ("recall", "read_document", "fly", "swim", "dig", "sing")]
    driver = Driver(Agent(), tools)
    driver.deliver("Let us swim.")
    driver.run()
    assert "recall" not in offered_tools(driver)
    question = driver.state.pages[1]
    mark = driver.page(PageKind.MARK, {"role": "user", "content": "[Message 2 left.]"})
    driver.append(e.Evicted(pages=(question.id,), mark=mark))
    assert {"recall", "read_document"} & set(offered_tools(driver)) == {"recall"}
    driver.deliver("Here is a book.")
    page = driver.page(PageKind.USER, {"role": "user", "content": "[a long text]"})
    driver.append(e.Received(pages=(page,), documents=("documents/book.txt",)))
    assert {"recall", "read_document"} <= set(offered_tools(driver))


@pytest.mark.parametrize(
    ("request_", "arguments", "may_answer"),
    [
        ("Copy a.txt to b.txt.", [], False),
        ("Copy a.txt to b.txt.", ["a.txt"], False),
        ("Copy a.txt to b.txt.", ["a.txt", "notes/B.txt"], True),
        ("See http://h.example/a.html, please.", [], False),
        ("See http://h.example/a.html, please.", ["http://h.example/a.html"], True),
        ("How much is 2 + 2?", [], True),
        ("What is a setup.py?", ["1", "2", "3"], True),  # it is not held back for ever
    ],
)
def test_a_guided_model_answers_once_it_dealt_with_what_the_request_names(
    request_: str, arguments: list[str], may_answer: bool
) -> None:
    said = [calls("look", arguments=json.dumps({"x": x})) for x in arguments]
    agent = Agent(guided=frozenset({"scripted"}))
    driver = Driver(agent, TOOLS, scripted(*said, Reply("Done.")))
    driver.deliver(request_)
    driver.run()
    assert (ANSWER_NAME in generations(driver)[len(arguments)].tools) is may_answer


def test_what_failed_does_not_count_as_dealt_with() -> None:
    look = calls("look", arguments='{"x": "a.txt"}')
    agent = Agent(guided=frozenset({"scripted"}))
    driver = Driver(agent, TOOLS, scripted(look, calls("add"), Reply("Done.")))
    results = iter(["Error: no.", "3"])
    driver.results = lambda name, arguments: next(results)
    driver.deliver("What does a.txt say?")
    driver.run()
    assert [ANSWER_NAME in one.tools for one in generations(driver)] == [False] * 3


def test_a_tool_that_fails_alike_is_left_out_once() -> None:
    driver = guided(calls("add"), calls("add"), calls("look"), Reply("Three."))
    driver.results = lambda name, arguments: "Error: no." if name == "add" else "3"
    driver.run()
    assert ["add" in one.tools for one in generations(driver)] == [True, True, False, True]
    assert driver.answer == "Three."


def test_handles_are_opened_and_asked_about_in_quarantine_alone() -> None:
    opens = Contract(capability=CAPABILITY)
    tools = (*TOOLS, tool("inspect", contract=opens), tool("open_handle", contract=opens))
    for quarantine in (False, True):
        driver = Driver(Agent(), tools, quarantine=quarantine)
        driver.deliver("Read and inspect the text behind the handle.")
        shown = ("inspect", "open_handle") if quarantine else ()
        assert offered_tools(driver) == (*shown, "add", "look")


def test_in_quarantine_nothing_that_a_message_names_is_shown_unasked() -> None:
    agent = Agent(guided=frozenset({"scripted"}))
    for quarantine in (False, True):
        driver = Driver(agent, (tool("read_file"),), quarantine=quarantine)
        driver.deliver("What does notes.txt say?")
        driver.step()
        assert isinstance(driver.step(), Generate if quarantine else Call)
