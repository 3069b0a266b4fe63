from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from oneiros.cli.app import COMMANDS, app

MODEL = "smollm2-135m"


def test_the_help_lists_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert all(f"\n│ {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert f"Example: oneiros {name}" in done.stdout


@pytest.mark.parametrize("name", ["ls", "cat", "search", "history", "undo"])
def test_every_command_about_files_has_help_with_an_example(name: str) -> None:
    done = CliRunner().invoke(app, ["fs", name, "--help"])
    assert f"Example: oneiros fs {name}" in done.stdout


def test_help_is_quick() -> None:
    """0.3 s on an idle machine; this one may be busy, so time on the processor counts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "oneiros", "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.6


def test_help_loads_neither_numpy_nor_the_engine() -> None:
    code = (
        "import sys, oneiros.cli.app\n"
        "heavy = ('numpy', 'tokenizers', 'jinja2', 'oneiros.engine')\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_version(oneiros: Callable[..., Any]) -> None:
    assert oneiros("--version").stdout == f"oneiros {version('oneiros')}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["unknown-command"],
        ["run", MODEL, "hi", "--no-such-option"],
        ["run"],
        ["run", MODEL, "hi", "--temperature", "warm"],
        ["next", MODEL, "hi", "--count", "0"],
        ["run", MODEL, "hi", "--threads", "0"],
        ["--model", MODEL, "models"],
    ],
)
def test_wrong_usage_exits_with_2(oneiros: Callable[..., Any], arguments: list[str]) -> None:
    done = oneiros(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["run", "complete", "next", "chat", "inspect", "tokenize"])
def test_an_unknown_model_is_refused_and_a_near_one_suggested(
    refused: Callable[..., str], command: str
) -> None:
    arguments = [] if command in ("chat", "inspect") else ["hi"]
    message = refused(command, "smolm2-135m", *arguments, stdin="hi")
    assert "'smolm2-135m'" in message
    assert f"Did you mean {MODEL}" in message


def test_a_model_that_was_not_pulled_is_refused(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    name = "qwen2.5-coder-0.5b"
    message = refused("run", name, "hi", env={"ONEIROS_HOME": str(tmp_path)})
    assert f"oneiros pull {name}" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--top-k", "-1"),
        ("--top-p", "0"),
        ("--top-p", "1.5"),
        ("--min-p", "-0.1"),
        ("--repetition-penalty", "0"),
        ("--max-tokens", "0"),
    ],
)
def test_invalid_sampling_values_are_refused(
    refused: Callable[..., str], option: str, value: str
) -> None:
    message = refused("run", MODEL, "hi", option, value)
    assert option.removeprefix("--").replace("-", "_") in message


def test_the_defaults_in_the_help_are_those_of_the_engine(oneiros: Callable[..., Any]) -> None:
    from oneiros.cli import options
    from oneiros.engine.sampling import SamplingOptions
    from oneiros.model import catalog

    assert options.DEFAULT_MODEL == catalog.DEFAULT_MODEL
    defaults = SamplingOptions()
    help_text = " ".join(oneiros("run", "--help").stdout.replace("│", " ").split())
    for name in (
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
    ):
        after = help_text.partition(f"--{name.replace('_', '-')} ")[2]
        assert after.partition("[default: (")[2].startswith(f"{getattr(defaults, name)})"), name


def test_a_pipe_that_closes_early_is_no_error(data_folder: Path) -> None:
    text = data_folder / "text" / "tinyshakespeare.txt"
    command = f"{sys.executable} -m oneiros tokenize {MODEL} --file '{text}' | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "5345\tFirst\n"
    assert done.stderr == ""


def test_an_argument_that_is_no_text_is_refused(refused: Callable[..., str]) -> None:
    argument = os.fsdecode(b"caf\xe9")
    assert "no text in this locale" in refused("tokenize", MODEL, argument)
