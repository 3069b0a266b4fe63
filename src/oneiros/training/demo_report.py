"""The report of the demo: what each stage made of the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oneiros.training.base_run import BaseResult
from oneiros.training.chat_run import ChatResult
from oneiros.training.events import Dreamed
from oneiros.training.report import quoted, table
from oneiros.training.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What was asked of a model on the command line, and what came."""

    command: str  # "complete" or "chat"
    prompt: str
    answer: str


def write_demo_report(
    folder: Path,
    base: BaseResult,
    chat: ChatResult,
    dialogues: Sequence[Dialogue],
    ended: Sequence[int],
) -> Path:
    """Write report.md into the demo's folder.

    Args:
        folder: the demo's.
        base: how the base model came out.
        chat: how the chat model came out.
        dialogues: with both.
        ended: replies that ended as replies, of base and chat model, and how many were asked.

    Returns:
        The report's path.
    """
    dreams = [event for event in RunFolder(folder / "base").events() if isinstance(event, Dreamed)]
    shown = {dream.step: dream for dream in (dreams[0], dreams[len(dreams) // 2], dreams[-1])}
    base_ended, chat_ended, questions = ended
    summary = {
        "base model": f"{base.config.parameters:,} parameters, "
        f"{base.steps * base.config.batch_tokens:,} tokens, {base.seconds / 60:.1f} minutes",
        "bits per byte": "none" if base.bits_per_byte is None else f"{base.bits_per_byte:.3f}",
        "chat model": f"{chat.steps:,} steps, {chat.seconds / 60:.1f} minutes",
        "replies that end as replies do": f"base {base_ended} of {questions}, "
        f"chat {chat_ended} of {questions}",
    }
    parts = [
        "# From text to a chat model",
        "A network this small, trained for minutes, knows next to nothing. What there is to see is "
        "what each stage changes: noise becomes words and verses, and words become replies that "
        "begin, end, and have the form of answers. They are not true.",
        table("", summary),
        "## The base model dreams",
        *(f"After {dream.step:,} steps:\n\n{quoted(dream.text)}" for dream in shown.values()),
        "![Loss](base/loss.png)",
        "Run by `oneiros complete`:",
        *(_dialogue(dialogue) for dialogue in dialogues if dialogue.command == "complete"),
        "## The chat model answers",
        "![Loss](chat/loss.png)",
        "Run by `oneiros chat`:",
        *(_dialogue(dialogue) for dialogue in dialogues if dialogue.command == "chat"),
        "Answers before and after fine-tuning: [chat/report.md](chat/report.md). "
        "The base run: [base/report.md](base/report.md).",
    ]
    report = folder / "report.md"
    report.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return report


def _dialogue(dialogue: Dialogue) -> str:
    asked = dialogue.prompt.strip() or "(nothing)"
    return f"**{asked}**\n\n{quoted(dialogue.answer)}"
