"""The whole path in one go: text, tokenizer, base model, chat model, GGUF files, dialogues.

    python -m oneiros.training.demo FOLDER [--data DIR]

Takes about ten minutes on two cores. It shows how the machinery works, not what a model can know:
the network has some four million parameters and has read three megabytes. What was done is kept;
run again, the demo goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from oneiros.errors import OneirosError, TrainingError
from oneiros.model.json_text import read_object
from oneiros.model.replacement import replacing_file
from oneiros.rendering import shown
from oneiros.training.base_run import BaseRequest, BaseResult, Watcher, train_base
from oneiros.training.chat_run import ChatRequest, ChatResult, ChatWatcher, train_chat
from oneiros.training.config import WIDTH_PER_LAYER
from oneiros.training.conversations import is_set_aside, read_conversations
from oneiros.training.demo_report import Dialogue, write_demo_report
from oneiros.training.documents import read_documents, read_lines
from oneiros.training.events import Dreamed, Evaluated, Event
from oneiros.training.samples import answers
from oneiros.training.tokenizer import TokenizerConfig, save_tokenizer, train_tokenizer

INTERRUPTED = 130

_PACKAGE = "fortunes"  # of Debian: some 15,000 short texts, 2 MB
_FORTUNES = Path("usr/share/games/fortunes")
_PATIENCE = 120  # seconds for a download

_VALIDATION = 0.05  # of the conversations
_QUESTION = 200  # characters of a question, after which a reply of some length fits the context

_BEGINNINGS = ("", "ROMEO:\n", "The ")
_QUESTIONS = ("What is fish oil?", "Who are you?", "Name three colours.", "What is a king?")


# Times the network's width; a base model that has hardly begun may change more than others.
_CHAT_RATE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """How large everything is."""

    vocabulary: int = 2048
    depth: int = 4
    tokens: float = 2e6  # that the base model is trained on
    epochs: float = 6  # of the conversations
    longest: int = 600  # characters of a conversation: the network's context is short
    debian: bool = True  # try to fetch the Debian package
    # Values of PretrainConfig that are not the depth's.
    base: Mapping[str, Any] = field(default_factory=lambda: {"evaluation_rows": 64})
    chat: Mapping[str, Any] = field(default_factory=dict)  # and of FinetuneConfig
    reply_tokens: int = 96


@dataclass(frozen=True, slots=True)
class Sources:
    """What is learnt from."""

    texts: tuple[Path, ...]
    talks: Path


def demo(
    folder: Path, data: Path, config: DemoConfig, say: Callable[[str], None] = print
) -> Path | None:
    """Go the whole way, or the rest of it.

    Args:
        folder: where everything goes.
        data: the project's data folder, with text/tinyshakespeare.txt and conversations/.
        config: sizes.
        say: is told what happens.

    Returns:
        The report; None if a stage was interrupted.

    Raises:
        OneirosError: a stage could not be done; says which file or setting is the reason.
    """
    say(f"Everything goes to {folder}.")
    sources = gather(folder / "sources", data, config, say)
    make_tokenizer(folder / "tokenizer", sources, config, say)
    say(f"Base model: learns to continue texts, in {folder / 'base'}")
    base = train_base(
        BaseRequest(
            output=folder / "base",
            depth=config.depth,
            data=sources.texts,
            tokenizer=folder / "tokenizer",
            tokens=config.tokens,
            settings=config.base,
        ),
        Watcher(happened=_teller(say)),
    )
    if not base.finished or base.model is None:
        return None
    say(f"Chat model: learns to answer, in {folder / 'chat'}")
    chat = train_chat(
        ChatRequest(
            output=folder / "chat",
            model=base.model,
            data=(sources.talks,),
            epochs=config.epochs,
            validation=_VALIDATION,
            settings={"rate": _CHAT_RATE / (WIDTH_PER_LAYER * config.depth)} | {**config.chat},
        ),
        ChatWatcher(happened=_teller(say)),
    )
    if not chat.finished:
        return None
    say("Both speak, run by `oneiros complete` and `oneiros chat`:")
    spoken = folder / "dialogues.json"
    if not spoken.exists():
        found = {
            "dialogues": [asdict(dialogue) for dialogue in converse(folder, config)],
            "ended": ended_replies(folder, sources, config),
        }
        with replacing_file(spoken) as file:
            file.write((json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode())
    content: dict[str, Any] = read_object(spoken)
    dialogues = [Dialogue(**values) for values in content["dialogues"]]
    for dialogue in dialogues:
        say(f"[{dialogue.command}] {dialogue.prompt!r} -> {dialogue.answer!r}")
    report = write_demo_report(folder, base, chat, dialogues, content["ended"])
    _say_where(folder, base, chat, report, say)
    return report


def gather(folder: Path, data: Path, config: DemoConfig, say: Callable[[str], None]) -> Sources:
    """The texts and conversations, chosen once for all: a demo that goes on has the same.

    Raises:
        TrainingError: the data folder lacks a file.
    """
    chosen = folder / "sources.json"
    if not chosen.exists():
        shakespeare = data / "text" / "tinyshakespeare.txt"
        dolly = data / "conversations" / "dolly-hhrlhf-small.jsonl"
        for path in (shakespeare, dolly):
            if not path.is_file():
                raise TrainingError(
                    f"{path}: no such file. Name the folder of data with --data or ONEIROS_DATA."
                )
        folder.mkdir(parents=True, exist_ok=True)
        texts = [str(shakespeare.absolute())]
        fortunes = folder / "fortunes.jsonl"
        if config.debian and fetch_fortunes(fortunes, folder / "package"):
            texts.append(str(fortunes.absolute()))
        talks = folder / "talks.jsonl"
        _write_lines(talks, short_talks(dolly, config.longest))
        with replacing_file(chosen) as file:
            file.write(json.dumps({"texts": texts, "talks": str(talks.absolute())}).encode())
    content: dict[str, Any] = read_object(chosen)
    sources = Sources(tuple(map(Path, content["texts"])), Path(content["talks"]))
    say(f"Text: {', '.join(path.name for path in sources.texts)}; talks: {sources.talks.name}")
    return sources


def fetch_fortunes(path: Path, folder: Path) -> bool:
    """Fetch Debian's package of short texts through apt, without installing it.

    Args:
        path: the JSON Lines file to write.
        folder: for the package and what is in it.

    Returns:
        Whether that was possible: there may be no apt, no network, or no such package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not _done(["apt-get", "download", _PACKAGE], folder):
        return False
    packages = sorted(folder.glob(f"{_PACKAGE}_*.deb"))
    if not packages or not _done(["dpkg-deb", "-x", packages[-1].name, "."], folder):
        return False
    files = sorted(file for file in (folder / _FORTUNES).glob("*") if file.suffix == "")
    texts = [
        text.strip()
        for file in files
        for text in file.read_text(encoding="utf-8", errors="replace").split("\n%\n")
        if text.strip()
    ]
    _write_lines(path, ({"text": text} for text in texts))
    return bool(texts)


def short_talks(path: Path, longest: int) -> Iterator[dict[str, str]]:
    """Questions and answers of Dolly's form, without the instructions around the question."""
    for _, value in read_lines(path):
        assert isinstance(value, dict)
        question = str(value["prompt"]).split("### Instruction:\n")[-1]
        question = question.removesuffix("\n\n### Response:\n").strip()
        answer = str(value["response"]).strip()
        if question and answer and len(question) + len(answer) <= longest:
            yield {"prompt": question, "response": answer}


def make_tokenizer(
    folder: Path, sources: Sources, config: DemoConfig, say: Callable[[str], None]
) -> None:
    """Learn a vocabulary from all the texts, those of the conversations too."""
    if folder.exists():
        say(f"Tokenizer: is there, in {folder}")
        return
    say(f"Tokenizer: {config.vocabulary:,} tokens, in {folder}")

    def documents() -> Iterator[str]:
        for path in sources.texts:
            yield from read_documents(path)
        for talk in read_conversations([sources.talks]):
            yield from (message["content"] for message in talk.messages)

    save_tokenizer(train_tokenizer(documents(), TokenizerConfig(config.vocabulary)), folder)


def converse(folder: Path, config: DemoConfig) -> list[Dialogue]:
    """What both models say, as a person at the command line would get it."""
    base, chat = _file(folder / "base"), _file(folder / "chat")
    limits = ["--max-tokens", str(config.reply_tokens), "--seed", "1"]
    dialogues = []
    for text in _BEGINNINGS:
        command = ["complete", str(base), text, *limits]
        dialogues.append(Dialogue("complete", text, _oneiros(command, "")))
    for text in _QUESTIONS:
        dialogues.append(Dialogue("chat", text, _oneiros(["chat", str(chat), *limits], text)))
    return dialogues


def ended_replies(folder: Path, sources: Sources, config: DemoConfig) -> list[int]:
    """How many replies to questions that were set aside end as replies do.

    Returns:
        Of the base model, of the chat model, and how many questions there were.
    """
    aside = [
        talk
        for talk in read_conversations([sources.talks])
        if is_set_aside(talk, _VALIDATION) and len(talk.question[-1]["content"]) <= _QUESTION
    ]
    base, chat = (
        answers(_file(folder / stage), aside, tokens=2 * config.reply_tokens, seed=1)
        for stage in ("base", "chat")
    )
    return [sum(r.ended for r in base), sum(r.ended for r in chat), len(aside)]


def _file(run: Path) -> Path:
    return run / "model-q8_0.gguf"


def _oneiros(arguments: list[str], stdin: str) -> str:
    """The output of a command line.

    Raises:
        TrainingError: it failed; with what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "oneiros", *arguments],
        input=stdin.encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise TrainingError(f"`oneiros {arguments[0]}` failed: {done.stderr.decode().strip()}")
    return done.stdout.decode(errors="replace").strip("\n")


def _done(command: list[str], folder: Path) -> bool:
    """Whether a command could be run to its end without an error."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _write_lines(path: Path, values: Iterator[Mapping[str, str]]) -> None:
    with replacing_file(path) as file:
        for value in values:
            file.write((json.dumps(value, ensure_ascii=False) + "\n").encode())


def _teller(say: Callable[[str], None]) -> Callable[[Event], None]:
    def happened(event: Event) -> None:
        match event:
            case Evaluated():
                say(f"  step {event.step:,}: {event.bits_per_byte:.3f} bits per byte")
            case Dreamed():
                say(f"  step {event.step:,} dreams: {event.text[:100]!r}")

    return happened


def _say_where(
    folder: Path, base: BaseResult, chat: ChatResult, report: Path, say: Callable[[str], None]
) -> None:
    say(f"The report:      {report}")
    say(f"The runs:        {base.report}, {chat.report}")
    say(f'Dream yourself:  oneiros complete {_file(folder / "base")} "ROMEO:"')
    say(f"Talk to it:      oneiros chat {_file(folder / 'chat')}")


def main() -> int:
    """The command line. Exit codes as `oneiros`: 0 done, 1 an error, 130 interrupted."""
    parser = argparse.ArgumentParser(description="From text to a chat model in ten minutes.")
    parser.add_argument("folder", type=Path, help="where everything goes")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("ONEIROS_DATA", "../shared/data")),
        help="the folder of data (default: ONEIROS_DATA, or ../shared/data)",
    )
    arguments = parser.parse_args()
    try:
        report = demo(arguments.folder, arguments.data, DemoConfig())
    except OneirosError as error:
        print(f"oneiros: {shown(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        report = None
    if report is None:
        print("Stopped. The same command goes on from there.", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
