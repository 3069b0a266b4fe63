from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from oneiros.cli.keyboard import history, read_message


def typing(*lines: str) -> Callable[[str], str]:
    """In the place of a keyboard."""
    remaining = list(lines)

    def ask(prompt: str) -> str:
        if not remaining:
            raise EOFError
        return remaining.pop(0)

    return ask


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["hello"], "hello"),
        (["one \\", "two\\", "", "never read"], "one \ntwo\n"),
        (['"""', "def f():", "    return 1", '"""'], "def f():\n    return 1"),
        (['"""a', '  b"""'], "a\n  b"),
        (['"""all on one line"""'], "all on one line"),
        (['say """hello"""'], 'say """hello"""'),
    ],
)
def test_messages_of_one_and_of_several_lines(lines: list[str], message: str) -> None:
    assert read_message(typing(*lines)) == message


@pytest.mark.parametrize("lines", [[], ["one \\"], ['"""', "one"]])
def test_the_end_of_input_ends_a_message_too(lines: list[str]) -> None:
    with pytest.raises(EOFError):
        read_message(typing(*lines))


def test_history_is_kept_and_private(tmp_path: Path) -> None:
    import readline

    path = tmp_path / "data" / "chat-history"
    with history(path):
        readline.add_history("a secret")
    assert "a secret" in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    readline.clear_history()
    with history(path):
        assert readline.get_history_item(1) == "a secret"
    readline.clear_history()


def test_history_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with history(tmp_path / "file" / "chat-history"):
        pass
