"""`oneiros chat`: in a pipe, and on a terminal with a person in front of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


def test_a_conversation_on_a_terminal(
    oneiros: Callable[..., Any], terminal: Callable[..., Any], tmp_path: Path
) -> None:
    chat = terminal("chat", *GREEDY)
    chat.expect("8,192 tokens of context")
    chat.expect("> ")
    chat.type(QUESTION + "\n")
    answer = json.loads(oneiros("run", "smollm2-135m", QUESTION, *GREEDY, "--json").stdout)
    assert answer["text"] in chat.expect("8 tokens · ")
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
    assert [m["content"] for m in messages if m["role"] == "user"] == [
        QUESTION,
        "And \nof Italy?",
    ]

    chat.type("/help\n")
    chat.expect("/reset")
    chat.type("/nonsense\n")
    chat.expect("no command /nonsense")
    chat.type("/system Answer in one word.\n")
    chat.expect("new conversation")
    chat.type(f"/save {saved}2\n")
    chat.expect("Saved")
    assert json.loads(Path(f"{saved}2").read_text(encoding="utf-8")) == [
        {"role": "system", "content": "Answer in one word."}
    ]
    chat.type("\x04")  # Ctrl-D
    assert chat.wait() == 0
    assert "Traceback" not in chat.screen


def test_ctrl_c_stops_the_reply_and_not_the_program(terminal: Callable[..., Any]) -> None:
    chat = terminal("chat", *ENDLESS)
    chat.expect("> ")
    chat.type(QUESTION + "\n")
    chat.expect("\n")
    chat.expect("e")
    chat.type("\x03")  # Ctrl-C
    chat.expect("· stopped", timeout=20)
    chat.expect("> ")
    chat.type("And now?\n")
    chat.expect("\n")
    chat.expect("e")
    chat.type("\x03")
    chat.expect("cached")
    chat.expect("> ")
    chat.pause()
    chat.type("\x03")
    chat.expect("Ctrl-C again")
    chat.expect("> ")
    chat.pause()
    chat.type("\x03")
    assert chat.wait() == 130
    assert "Traceback" not in chat.screen


def test_a_full_context_is_said_and_reset_helps(terminal: Callable[..., Any]) -> None:
    chat = terminal("chat", *ENDLESS, "--context", "64")
    chat.expect("> ")
    chat.type(QUESTION + "\n")
    chat.expect("context of 64 tokens is full")
    chat.expect("> ")
    chat.type("Go on.\n")
    chat.expect("too many")
    chat.expect("/reset starts")
    chat.expect("> ")
    chat.type("/reset\n")
    chat.expect("forgotten")
    chat.type(QUESTION + "\n")
    chat.expect("context of 64 tokens is full")
    chat.expect("> ")
    chat.type("/quit\n")
    assert chat.wait() == 0


@pytest.mark.parametrize("sign", ["\x1b]0;x\x07", "\x9b31m"])
def test_escape_sequences_of_the_text_do_not_reach_the_terminal(
    terminal: Callable[..., Any], sign: str
) -> None:
    done = terminal("complete", "smollm2-135m", f"a{sign}b", "--max-tokens", "1")
    assert done.wait() == 0
    assert sign not in done.screen
    assert "a" + sign.translate({0x1B: "␛", 7: "␇", 0x9B: "�"}) + "b" in done.screen
