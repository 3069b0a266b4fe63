"""Exported models: two files, and gcc, give the same tokens and a working program."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from oneiros.model.chat_format import load_chat_format
from oneiros.model.export import export
from oneiros.model.parameters import Parameters, open_parameters
from oneiros.model.tokenizer import Tokenizer, load_tokenizer

TEXTS = (
    "Why is the sky blue?",
    "  two spaces,  then   more\t\ttabs\r\n\r\n  and lines \n",
    "It's I'M they'll 'twas he'd've O'Neil's '' 's",
    "1234567 3.14 a1b2 x² ½ Ⅷ ٣٤٥",
    "naïve Ελλάδα Привет, мир! 你好,世界 नमस्ते שלום สวัสดี 안녕하세요",
    "emoji 👩‍👩‍👧 🇪🇺 z̸a̶l̷g̵o \u00a0nbsp \u2003em-space\u3000wide",
    "def f(x):\n    return {'a': [x**2, -x]}  # comment\n\n\n\tif True: pass",
    "https://example.org/?q=a+b&c=%20#frag $5.00 (50%) <tag/> ...!!!???",
    "<|im_start|>user",
    " ",
    "\n",
    "a",
)


@pytest.fixture(scope="module")
def parameters(default_model_path: Path) -> Parameters:
    return open_parameters(default_model_path)


@pytest.fixture(scope="module")
def tokenizer(parameters: Parameters) -> Tokenizer:
    return load_tokenizer(parameters)


@pytest.fixture(scope="module")
def exported(parameters: Parameters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with model.bin, run.c and the compiled run."""
    folder = tmp_path_factory.mktemp("exported")
    export(parameters, folder)
    strict = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    compiled = subprocess.run(
        ["gcc", *strict, "run.c", "-o", "run", "-lm"], cwd=folder, capture_output=True, text=True
    )
    assert compiled.returncode == 0, compiled.stderr
    return folder


def run(folder: Path, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["./run", "model.bin", *arguments], cwd=folder, input=text, capture_output=True, text=True
    )


def ids_in_c(folder: Path, *arguments: str, text: str) -> list[int]:
    result = run(folder, "-t", *arguments, text=text)
    assert result.returncode == 0, result.stderr
    return [int(token) for token in result.stdout.split()]


@pytest.mark.parametrize("text", TEXTS)
def test_the_program_makes_the_same_tokens(exported: Path, tokenizer: Tokenizer, text: str) -> None:
    assert ids_in_c(exported, "-c", text=text) == tokenizer.prompt_ids(text)


def test_the_program_makes_the_same_tokens_of_a_long_text(
    exported: Path, tokenizer: Tokenizer, data_folder: Path
) -> None:
    text = (data_folder / "text" / "tinyshakespeare.txt").read_text()[:50_000]
    assert ids_in_c(exported, "-c", text=text) == tokenizer.prompt_ids(text)


def test_a_prompt_is_wrapped_as_a_chat_turn(
    exported: Path, parameters: Parameters, tokenizer: Tokenizer
) -> None:
    chat_format = load_chat_format(parameters, tokenizer)
    assert chat_format is not None
    for text in TEXTS:
        rendered = chat_format.render([{"role": "user", "content": text}])
        assert ids_in_c(exported, text=text) == rendered


def test_text_that_the_vocabulary_lacks_is_refused(exported: Path) -> None:
    result = subprocess.run(
        ["./run", "model.bin", "-t", "-c"], cwd=exported, input=b"\xf1", capture_output=True
    )
    assert result.returncode == 1
    assert b"no token for byte 0xf1" in result.stderr


@pytest.mark.parametrize("kept", [0, 50, 5_000, 1_000_000, 50_000_001])
def test_a_truncated_parameter_file_is_refused(exported: Path, tmp_path: Path, kept: int) -> None:
    with (exported / "model.bin").open("rb") as whole:
        (tmp_path / "model.bin").write_bytes(whole.read(kept))
    (tmp_path / "run").symlink_to(exported / "run")
    result = run(tmp_path, "hello")
    assert result.returncode == 1
    assert "truncated" in result.stderr


def test_the_program_says_what_is_wrong(exported: Path) -> None:
    assert "usage" in run(exported, "-x").stderr
    assert "prompt is empty" in run(exported, "-c", text="").stderr
    assert (
        "No such file"
        in subprocess.run(
            ["./run", "missing.bin"], cwd=exported, capture_output=True, text=True
        ).stderr
    )
    too_long = run(exported, "-l", "logits", text="5 " * 9000)
    assert "9000 tokens long, 808 more than the model's context" in too_long.stderr
