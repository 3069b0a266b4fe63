from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros import cli
from oneiros.cli.console import SafeConsole
from oneiros.cli.next_tokens import bar
from oneiros.cli.output import bytes_text, one_line


def test_content_cannot_control_a_console_whatever_it_is_put_into() -> None:
    from rich.table import Table
    from rich.text import Text

    hostile = "\x1b]0;t\x07[link=https://evil.example]x[/link] \u202e:smile:"
    console = SafeConsole(width=100)
    console.file = io.StringIO()
    console._force_terminal = True
    table = Table(hostile)
    table.add_row(hostile)
    for content in (hostile, Text(hostile), Text("x", "link https://evil.example"), table):
        console.print(content)
    written = console.file.getvalue()
    assert "]8;" not in written and "\x1b]" not in written and "\x07" not in written
    assert "\u202e" not in written and "<U+202E>" in written
    assert written.count("[link=https://evil.example]x[/link]") == 4
    assert ":smile:" in written


def test_only_one_place_prints() -> None:
    """What is printed elsewhere would reach the terminal as it is."""
    for path in Path(cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and path.name != "output.py":
                called = ast.unparse(node.func)
                assert called not in ("print", "Console", "sys.stdout.write", "sys.stderr.write")


@pytest.mark.parametrize(
    ("text", "shown"),
    [(" the", "␣the"), ("a b ", "a b␣"), ("  ", "␣␣"), ("", ""), ("\n\t", "⏎→"), (" \n", "␣⏎")],
)
def test_a_token_is_shown_on_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown


@given(st.floats(0, 1), st.integers(1, 50))
def test_bars_are_as_long_as_their_share(share: float, width: int) -> None:
    shown = bar(share, width)
    assert abs(len(shown) - share * width) <= 1
    assert set(shown) <= set("█▏▎▍▌▋▊▉")


def test_bytes_for_people() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 98_362_432, 1_117_320_768)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "98.4 MB",
        "1.1 GB",
    ]
