"""Runs commands and draws what they print: docs/figures/terminal.svg, the README's picture.

python docs/figures/make_terminal.py
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 92
COMMANDS = (
    ("next", "smollm2-135m", "The capital of France is", "--count", "5"),
    (
        "run",
        "smollm2-135m",
        "Why do leaves fall in autumn?",
        "--temperature",
        "0",
        "--max-tokens",
        "90",
    ),
    ("tokenize", "smollm2-135m", "strawberries are <|im_end|> red"),
)


def main() -> None:
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    environment = {
        **os.environ,
        "FORCE_COLOR": "1",
        "COLUMNS": str(WIDTH),
        "TERM": "xterm-256color",
    }
    for command in COMMANDS:
        run = subprocess.run(
            [sys.executable, "-m", "oneiros", *command],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        console.print(Text("$ oneiros " + shlex.join(command), style="bold"))
        console.print(Text.from_ansi(run.stdout))
    drawn = console.export_svg(title="oneiros")
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # fetched from elsewhere
    Path(__file__).with_name("terminal.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
