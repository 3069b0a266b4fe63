"""Exported models: two files, and gcc, give the same tokens and a working program."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.chat_format import load_chat_format
from oneiros.model.export import export
from oneiros.model.parameters import Parameters, open_parameters
from oneiros.model.pretokenizers import pre_tokenizer
from oneiros.model.tokenizer import (
    Tokenizer,
    load_tokenizer,
    tokenizer_from_json,
    tokenizer_from_sentencepiece,
)
from tests.model.builders import build_folder, build_gguf, tiny_architecture
from tests.model.tokenizer_builders import (
    byte_level_json,
    edited_json,
    mistral_model,
    sentencepiece_json,
)
from tests.model.tokenizer_texts import unicode_soup

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
        ["./run", "model.bin", *arguments],
        cwd=folder,
        input=text,
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # a reply may end within a character
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


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_the_program_cuts_words_as_the_pre_tokenizer_does(
    exported: Path, name: str, tmp_path: Path
) -> None:
    named = pre_tokenizer(name)
    changes = {"pre_tokenizer": named.definition, "model.ignore_merges": named.ignore_merges}
    path = edited_json(byte_level_json(tmp_path), changes)
    tokenizer, folder = exported_with_tokenizer(exported, path, tmp_path)
    for text in (*TEXTS, unicode_soup(3000)):
        assert ids_in_c(folder, "-c", text=text) == tokenizer.prompt_ids(text)


@pytest.mark.parametrize("metaspace", [None, "first", "always", "never"])
def test_the_program_merges_characters_as_sentencepiece_does(
    exported: Path, metaspace: str | None, tmp_path: Path
) -> None:
    path = sentencepiece_json(tmp_path, metaspace)
    tokenizer, folder = exported_with_tokenizer(exported, path, tmp_path)
    for text in (*TEXTS, unicode_soup(200)):
        assert ids_in_c(folder, "-c", text=text) == tokenizer.prompt_ids(text)


def test_the_program_merges_as_mistral_does(exported: Path, tmp_path: Path) -> None:
    tokenizer, folder = exported_with_tokenizer(exported, mistral_model(tmp_path), tmp_path)
    for text in (*TEXTS, unicode_soup(200)):
        assert ids_in_c(folder, "-c", text=text) == tokenizer.prompt_ids(text)


def test_a_pre_tokenizer_that_the_program_lacks_is_refused(tmp_path: Path) -> None:
    path = build_gguf(tmp_path / "tiny.gguf", metadata={"tokenizer.ggml.pre": "deepseek-v3"})
    with pytest.raises(UnsupportedModelError, match=r"run\.c cuts text"):
        export(open_parameters(path), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_a_folder_that_cannot_be_made_is_named(parameters: Parameters, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelFileError, match="file/folder: cannot be made"):
        export(parameters, tmp_path / "file" / "folder")


def test_a_model_without_a_chat_format_only_continues(exported: Path, tmp_path: Path) -> None:
    folder = build_folder(tmp_path / "base", tiny_architecture())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    plain = (folder / "tokenizer.json").read_text().replace("<|im_start|>", "<|other|>")
    (folder / "tokenizer.json").write_text(plain)
    assert not export(open_parameters(folder), tmp_path).answers
    (tmp_path / "run").symlink_to(exported / "run")
    assert "has no chat format: use -c" in run(tmp_path, "hello").stderr
    assert run(tmp_path, "-c", "-n", "5", "hello").returncode == 0


def exported_with_tokenizer(
    exported: Path, tokenizer_file: Path, tmp_path: Path
) -> tuple[Tokenizer, Path]:
    """A tiny model that has the tokenizer of a file, and the folder that it is exported to."""
    load = tokenizer_from_json if tokenizer_file.suffix == ".json" else tokenizer_from_sentencepiece
    tokenizer = load(tokenizer_file)
    model = build_folder(
        tmp_path / "model", tiny_architecture(vocabulary=tokenizer.vocabulary_size)
    )
    (model / "tokenizer.json").unlink()
    for file in (tokenizer_file, tokenizer_file.with_name("tokenizer_config.json")):
        if file.exists():
            shutil.copy(file, model)
    folder = tmp_path / "exported"
    export(open_parameters(model), folder)
    (folder / "run").symlink_to(exported / "run")
    return load_tokenizer(open_parameters(model)), folder
