"""The report of a fine-tuning run: what was learnt, its curves, and answers before and after."""

from __future__ import annotations

import html
import statistics
from collections.abc import Mapping, Sequence

from oneiros.training.events import Evaluated, Noted, Stepped
from oneiros.training.finetune import FinetuneConfig
from oneiros.training.plots import smoothed
from oneiros.training.report import draw_curves, table
from oneiros.training.run_folder import RunFolder
from oneiros.training.samples import Reply, Sample

_SHOWN = 1200  # characters of a text


def write_chat_report(
    run: RunFolder, config: FinetuneConfig, samples: Sequence[Sample], facts: Mapping[str, str]
) -> None:
    """Write report.md and its diagrams from metrics.jsonl.

    Args:
        run: where the metrics are, and the report goes.
        config: of the run.
        samples: questions and answers.
        facts: lines that begin the summary.

    Raises:
        TrainingError: metrics.jsonl is damaged.
    """
    events = [*run.events()]
    steps = [event for event in events if isinstance(event, Stepped)]
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    notes = [event for event in events if isinstance(event, Noted)]
    diagrams = draw_curves(run.path, steps, evaluations)
    parts = [
        "# A chat model",
        table("", dict(facts) | _summary(config, steps, evaluations, samples)),
        *(f"![{title}]({name})" for name, title in diagrams.items()),
        "## Before and after",
        f"Questions {_origin(evaluations)}, answered with the same seed by the engine.",
        *(_side_by_side(sample) for sample in samples),
        "## Settings",
        table("setting", {name: str(value) for name, value in config.to_dict().items()}),
    ]
    if notes:
        parts += ["## Remarks", "\n".join(f"- step {note.step:,}: {note.text}" for note in notes)]
    run.report.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _origin(evaluations: Sequence[Evaluated]) -> str:
    """Of the questions that are shown; what was set aside, if anything was, has been evaluated."""
    if evaluations:
        return "that were not learnt from"
    return "that were learnt from (none was set aside)"


def _summary(
    config: FinetuneConfig,
    steps: Sequence[Stepped],
    evaluations: Sequence[Evaluated],
    samples: Sequence[Sample],
) -> dict[str, str]:
    learns = f"adapters of rank {config.rank}" if config.rank else "all weights"
    lines = {"what learns": learns}
    if steps:
        speed = statistics.median(step.tokens_per_second for step in steps)
        refused = sum(not step.applied for step in steps)
        lines |= {
            "steps": f"{steps[-1].step + 1:,} of {config.steps:,} ({steps[-1].epoch:.2f} epochs)",
            "speed": f"{speed:,.0f} tokens/s (median)",
            "training loss": f"{smoothed([step.loss for step in steps])[-1]:.4f} "
            "nats per token of replies",
        }
        if refused:
            lines["steps refused"] = f"{refused:,} (loss or gradient was not finite)"
    if evaluations:
        first, last = evaluations[0], evaluations[-1]
        lines["validation loss"] = f"{first.loss:.4f} before, {last.loss:.4f} after"
        lines["validation"] = (
            f"{first.bits_per_byte:.4f} bits per byte before, {last.bits_per_byte:.4f} after"
        )
    if samples:
        before = sum(sample.before.ended for sample in samples)
        line = f"{before} of {len(samples)} before"
        if all(sample.after is not None for sample in samples):
            after = sum(sample.after is not None and sample.after.ended for sample in samples)
            line += f", {after} of {len(samples)} after"
        lines["replies ended as replies"] = line
    return lines


def _side_by_side(sample: Sample) -> str:
    head = f"**{_cell(sample.question)}**"
    rows = ["| before | after | wanted |", "|---|---|---|"]
    after = "" if sample.after is None else _reply(sample.after)
    rows.append(f"| {_reply(sample.before)} | {after} | {_cell(sample.wanted)} |")
    return f"{head}\n\n" + "\n".join(rows)


def _reply(reply: Reply) -> str:
    return _cell(reply.text) + ("" if reply.ended else " *(not ended as a reply)*")


def _cell(text: str) -> str:
    """A text as it is, in a cell of a Markdown table."""
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    safe = html.escape(shown, quote=False)
    for sign in "\\|*_`[]#":
        safe = safe.replace(sign, f"\\{sign}" if sign != "|" else "&#124;")
    return safe.replace("\r", "").replace("\n", "<br>")
