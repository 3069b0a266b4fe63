"""`oneiros chat`: in a pipe, and on a terminal with a person in front of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oneiros.kernel.label import Label
from oneiros.kernel.spec import ProcessSpec
from tests.kernel.serving import Running, running_kernel

GREEDY = ("--temperature", "0", "--max-tokens", "8")
# What was said once becomes ever likelier: the reply repeats itself and does not end.
ENDLESS = ("--temperature", "0", "--frequency-penalty", "-2")
QUESTION = "What is the capital of France?"


def test_a_pipe_gets_the_answer_and_nothing_else(oneiros: Callable[..., Any]) -> None:
    done = oneiros("chat", *GREEDY, stdin=QUESTION + "\n")
    assert done.returncode == 0
    assert done.stderr == ""
    answer = json.loads(oneiros("run", "smollm2-135m", QUESTION, *GREEDY, "--json").stdout)
    assert answer["text"]
    assert done.stdout == answer["text"] + "\n"


def test_an_empty_pipe_is_refused(refused: Callable[..., str]) -> None:
    assert "standard input is empty" in refused("chat", stdin="\n")


def test_a_pipe_that_is_not_utf8_is_refused(refused: Callable[..., str]) -> None:
    assert "standard input is not UTF-8" in refused("chat", stdin=b"caf\xe9")


def test_a_prompt_longer_than_the_context_is_refused(refused: Callable[..., str]) -> None:
    message = refused("chat", "--context", "256", stdin="word " * 1000)
    assert re.search(r"1,0\d\d tokens and the context 256: \d+ too many", message)


def test_a_conversation_on_a_terminal(terminal: Callable[..., Any], tmp_path: Path) -> None:
    """With a kernel of its own, which ends with it."""
    options = ("--temperature", "0", "--max-tokens", "5", "--system", "Be brief.", "--no-tools")
    chat = terminal("chat", *options)
    chat.expect("8,192 tokens of context")
    chat.expect("> ")
    chat.type(QUESTION + "\n")
    chat.expect(QUESTION)
    reply = chat.expect("5 tokens · ")
    chat.expect("cut at --max-tokens")
    chat.expect("> ")

    chat.type("And \\\n")
    chat.expect(". ")
    chat.type("of Italy?\n")
    assert re.search(r"prompt \d+ tokens, \d+ of them cached", chat.expect(" s ·"))
    chat.expect("> ")
    saved = tmp_path / "conversation.json"
    chat.type(f"/save {saved}\n")
    chat.expect("Saved")
    messages = json.loads(saved.read_text(encoding="utf-8"))
    assert [m["content"] for m in messages if m["role"] in ("system", "user")] == [
        "Be brief.",
        QUESTION,
        "And \nof Italy?",
    ]
    assert messages[2]["content"] in reply
    chat.expect("> ")
    chat.pause()
    chat.type("\x04")  # Ctrl-D
    assert chat.wait() == 0
    assert "Traceback" not in chat.screen
    assert not (tmp_path / "home" / "control.sock").exists()


def test_ctrl_c_stops_the_reply_and_not_the_program(terminal: Callable[..., Any]) -> None:
    chat = terminal("chat", *ENDLESS, "--no-tools")
    chat.expect("> ")
    chat.type(QUESTION + "\n")
    chat.expect("\n")
    chat.expect("a")
    chat.type("\x03")  # Ctrl-C
    chat.expect("· stopped", timeout=20)
    chat.expect("> ")
    chat.type("And now?\n")
    chat.expect("\n")
    chat.expect("a")
    chat.type("\x03")
    chat.expect("· stopped", timeout=20)
    chat.expect("> ")
    chat.pause()
    chat.type("\x03")
    chat.expect("Ctrl-C again")
    chat.expect("> ")
    chat.pause()
    chat.type("\x03")
    assert chat.wait() == 130
    assert "Traceback" not in chat.screen


@pytest.mark.long
def test_ctrl_c_while_the_model_loads_leaves(terminal: Callable[..., Any]) -> None:
    chat = terminal("chat")
    chat.expect("Loading")
    chat.type("\x03")
    assert chat.wait() == 130
    assert "Traceback" not in chat.screen


@pytest.fixture
def running(terminal: Callable[..., Any], tmp_path: Path) -> Iterator[Running]:
    """A kernel without a model, on the data folder of `terminal`."""
    with running_kernel(tmp_path / "home") as running:
        yield running


def test_nothing_that_others_say_controls_the_terminal(
    running: Running, terminal: Callable[..., Any]
) -> None:
    """A reply in pieces, a file's name, a process's title, and what came before."""
    hostile = "\x1b]0;owned\x07\x1b[2J\x9b31m\x1b]52;c;eA==\x07 a\rb \u202eexe.gpj\U000e0041 "
    link = "[https://bank.example](https://evil.example)"
    kernel = running.kernel
    running.run(kernel.start(ProcessSpec(owner="user", text=hostile, title=hostile)))
    kernel.disk.write("a\u202etxt.exe", b"x", call_id="0.0", label=Label.of("user"))
    chat = terminal("attach", "1")
    chat.expect("user: ␛]0;owned␇")
    chat.expect("\n> ")
    running.run(kernel.send(1, hostile + link))
    chat.type("hello\n")
    reply = chat.expect("You said: hello")
    assert "␛]0;owned␇␛[2J<U+009B>31m␛]52;c;eA==␇ a␍b <U+202E>exe.gpj<U+E0041>" in reply
    assert f"{link} [leads to evil.example]" in " ".join(reply.split())
    chat.type("/files\n")
    chat.expect("a<U+202E>txt.exe")
    chat.type("/ps\n")
    chat.expect("␛]0;owned␇")
    assert not re.search("[\x07\x80-\x9f\u202e\U000e0041]|\x1b\\]|\x1b\\[2J", chat.screen)


def test_a_chat_is_a_client_of_the_running_kernel(
    running: Running, terminal: Callable[..., Any]
) -> None:
    chat = terminal("chat", "--system", "Be nice.", "--temperature", "0")
    chat.expect("> ")
    chat.type("hello\n")
    chat.expect("You said: hello")
    assert "prompt 20 tokens, 12 of them cached" in chat.expect(" s")
    chat.expect("> ")
    (spec,) = running.kernel.specs
    assert spec.system == "Be nice."
    assert spec.sampling is not None
    assert spec.sampling.temperature == 0
    chat.type("/ps\n")
    chat.expect("waiting for a message")
    chat.expect("> ")
    chat.type("/fork\n")
    chat.expect("process 2 now")
    chat.expect("> ")
    chat.type("again\n")
    chat.expect("You said: again")
    chat.expect("> ")
    assert len(running.kernel.state(1).pages) < len(running.kernel.state(2).pages)
    chat.type("/reset\n")
    chat.expect("forgotten")
    chat.expect("> ")
    assert running.kernel.state(2).end is not None
    chat.type("/model other\n")
    chat.expect("new conversation with other")
    chat.expect("> ")
    chat.type("anew\n")
    chat.expect("You said: anew")
    chat.expect("> ")
    assert running.kernel.specs[1].model == "other"
    chat.type("/nonsense\n")
    chat.expect("no command /nonsense")
    chat.type("/tools\n")
    chat.expect("There are none")
    chat.type("/detach\n")
    chat.expect("oneiros attach 3")
    assert chat.wait() == 0
    assert running.kernel.state(3).end is None

    back = terminal("attach", "3")
    back.expect("assistant: You said: anew")
    back.expect("> ")
    back.type("endless\n")
    back.expect("You said: ")
    back.type("\x03")
    back.expect("· stopped")
    back.expect("> ")
    back.type("/quit\n")
    back.expect("goes on")
    assert back.wait() == 0
    assert running.kernel.state(3).end is None


def test_permissions_are_asked_inline_and_changes_undone(
    running: Running, terminal: Callable[..., Any]
) -> None:
    chat = terminal("chat")
    chat.expect("> ")
    chat.type("write a\x16\x1b.txt\n")  # Ctrl-V, and an escape character for a name
    chat.expect("Allow it?")
    chat.expect("n = no: ")
    chat.type("n\n")
    assert "denied: A person said no." in chat.expect("thank you")
    chat.expect("> ")
    chat.type("write b.txt\n")
    chat.expect("n = no: ")
    chat.type("a\n")
    shown = chat.expect("thank you")
    assert 'write(path="b.txt", text="hello") → wrote b.txt (and 1 more lines)' in shown
    chat.expect("> ")
    assert running.kernel.state(1).granted == {"write: send"}
    chat.type("/files\n")
    chat.expect("b.txt")
    chat.expect("> ")
    chat.type("/undo\n")
    chat.expect("takes back 1")
    chat.expect("> ")
    assert running.kernel.disk.list() == []
    chat.type("endless\n")
    chat.expect("You said: ")
    start = running.kernel.start
    running.run(start(ProcessSpec(owner="user", text="write not-ours.txt")))
    child = running.run(start(ProcessSpec(owner="user", text="write c.txt", parent=1)))
    assert "not-ours" not in chat.expect(f"[process {child}] write(path='c.txt')")
    chat.expect("n = no: ")
    chat.type("y\n")
    while running.kernel.state(child).calls:
        time.sleep(0.01)
    assert [entry.path for entry in running.kernel.disk.list()] == ["c.txt"]
    chat.type("\x03")
    chat.expect("· stopped")
    chat.expect("> ")
    chat.type("/quit\n")
    assert chat.wait() == 0
    assert running.kernel.state(1).end is not None
    shown = chat.screen.partition("denied")[0]
    assert "a␛.txt" in shown


def test_top_and_strace_follow_a_process(running: Running, terminal: Callable[..., Any]) -> None:
    pid = running.run(running.kernel.start(ProcessSpec(owner="user", title="watched")))
    trace = terminal("strace", str(pid))
    top = terminal("top", "--interval", "0.1")
    top.expect("watched")
    while not running.kernel.watchers:  # strace takes its time to start
        time.sleep(0.01)
    running.run(running.kernel.send(pid, "hi"))
    trace.expect('generate(prompt=20, cached=12) = 5 tokens, stop: "You said: hi"')
    top.type("q")
    assert top.wait() == 0
    trace.type("\x03")
    assert trace.wait() == 130


@pytest.mark.parametrize("sign", ["\x1b]0;x\x07", "\x9b31m"])
def test_escape_sequences_of_the_text_do_not_reach_the_terminal(
    terminal: Callable[..., Any], sign: str
) -> None:
    done = terminal("complete", "smollm2-135m", f"a{sign}b", "--max-tokens", "1")
    assert done.wait() == 0
    assert sign not in done.screen
    assert "a" + sign.translate({0x1B: "␛", 7: "␇", 0x9B: "<U+009B>"}) + "b" in done.screen
