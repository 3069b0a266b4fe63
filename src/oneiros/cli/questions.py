"""`oneiros questions`, `answer`: what processes ask people, without attaching to them."""

from __future__ import annotations

from textwrap import indent
from typing import Annotated, Any

import typer

from oneiros.cli import kernel, options, output
from oneiros.cli.signals import Signal
from oneiros.errors import OneirosError

_PERMISSIONS = {
    "yes": {"allow": True},
    "always": {"allow": True, "always": True},
    "no": {"allow": False},
}


def questions(json: options.Json = False) -> None:
    """List what processes ask: permissions for calls, and questions of their own."""
    asked = kernel.client().call("questions")
    if json:
        output.write_json(asked)
        return
    for question in asked:
        wanted = "yes, always or no" if question["kind"] == "permission" else "a text"
        calls = len(question["calls"])
        about = f", for {calls} calls" if calls > 1 else ""
        output.say(f"{question['call_id']}  process {question['pid']}  ({wanted}{about})")
        output.say(indent(question["text"], "  "))
    if not asked:
        output.say("Nothing is asked.")


def answer(
    call_id: Annotated[
        str,
        typer.Argument(metavar="CALL", help="As `oneiros questions` shows it.", show_default=False),
    ],
    text: Annotated[
        str,
        typer.Argument(
            metavar="ANSWER",
            help="yes, always (this and all calls of the same meaning) or no, where a permission "
            "is asked for; else any text.",
            show_default=False,
        ),
    ],
    pid: Annotated[
        int | None, typer.Option(help="Of the process that asks, if several have such a call.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Answer a question."""
    client = kernel.client()
    question = _asked(client.call("questions", pid=pid), call_id)
    said: dict[str, Any] = {"text": text}
    if question["kind"] == "permission":
        if text.lower() not in _PERMISSIONS:
            raise OneirosError(f"Call {call_id} asks for a permission: yes, always or no.")
        said = _PERMISSIONS[text.lower()]
    client.call("answer", call_id=call_id, pid=question["pid"], **said)
    if json:
        output.write_json({"call_id": call_id, "pid": question["pid"], **said})


def _asked(questions: list[dict[str, Any]], call_id: str) -> dict[str, Any]:
    found = [question for question in questions if call_id in question["calls"]]
    if not found:
        raise OneirosError(f"Call {call_id} asks nothing: `oneiros questions` lists what does.")
    if len(found) > 1:
        pids = ", ".join(str(question["pid"]) for question in found)
        raise OneirosError(f"Calls {call_id} of the processes {pids} ask: name one with --pid.")
    return found[0]


QUESTIONS = {
    "questions": Signal("oneiros questions", questions),
    "answer": Signal("oneiros answer 3.2 yes", answer),
}
