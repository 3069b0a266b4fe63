"""The report of a pre-training run: what was trained on what, its curves, and its dreams."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from oneiros.training.config import PretrainConfig
from oneiros.training.events import Dreamed, Evaluated, Noted, Stepped
from oneiros.training.plots import Curve, draw, smoothed
from oneiros.training.run_folder import RunFolder
from oneiros.training.shards import Manifest

_DREAMS_SHOWN = 4


def write_report(
    run: RunFolder, config: PretrainConfig, manifest: Manifest, facts: Mapping[str, str]
) -> None:
    """Write report.md and its diagrams from metrics.jsonl.

    Args:
        run: where the metrics are, and the report goes.
        config: of the run.
        manifest: of its data.
        facts: more lines for the summary, such as the device's name.

    Raises:
        TrainingError: metrics.jsonl is damaged.
    """
    events = [*run.events()]
    steps = [event for event in events if isinstance(event, Stepped)]
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    dreams = [event for event in events if isinstance(event, Dreamed)]
    notes = [event for event in events if isinstance(event, Noted)]
    diagrams = draw_curves(run.path, steps, evaluations)
    summary = _summary(config, steps, evaluations) | dict(facts)
    parts = [
        f"# A base model of depth {config.depth}",
        table("", summary),
        *(f"![{title}]({name})" for name, title in diagrams.items()),
        "## Dreams",
        "What the model writes when nothing is asked of it, from its first step to its last.",
        *(f"After {dream.step:,} steps:\n\n{quoted(dream.text)}" for dream in _spread(dreams)),
        "## Data",
        _data(manifest),
        "## Settings",
        table("setting", {name: str(value) for name, value in config.to_dict().items()}),
    ]
    if notes:
        parts += ["## Remarks", "\n".join(f"- step {note.step:,}: {note.text}" for note in notes)]
    run.report.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _summary(
    config: PretrainConfig, steps: Sequence[Stepped], evaluations: Sequence[Evaluated]
) -> dict[str, str]:
    lines = {"parameters": f"{config.parameters:,}"}
    if steps:
        last = steps[-1]
        speed = statistics.median(step.tokens_per_second for step in steps)
        mfu = statistics.median(step.mfu for step in steps)
        refused = sum(not step.applied for step in steps)
        lines |= {
            "steps": f"{last.step + 1:,} of {config.steps:,}",
            "tokens": f"{(last.step + 1) * config.batch_tokens:,} ({last.epoch:.2f} epochs)",
            "speed": f"{speed:,.0f} tokens/s, MFU {mfu:.1%} (medians)",
            "training loss": f"{smoothed([step.loss for step in steps])[-1]:.4f} nats per token",
        }
        if refused:
            lines["steps refused"] = f"{refused:,} (loss or gradient was not finite)"
    if evaluations:
        final = evaluations[-1]
        lines["validation loss"] = f"{final.loss:.4f} nats per token"
        lines["validation"] = f"{final.bits_per_byte:.4f} bits per byte"
    return lines


def draw_curves(
    folder: Path, steps: Sequence[Stepped], evaluations: Sequence[Evaluated]
) -> dict[str, str]:
    """File name -> title of the diagrams that there is something to draw for."""
    diagrams: dict[str, str] = {}
    finite = [step for step in steps if math.isfinite(step.loss)]
    if finite:
        numbers = [step.step for step in finite]
        values = [step.loss for step in finite]
        curves = [
            Curve("each batch", numbers, values, faint=True),
            Curve("training, smoothed", numbers, smoothed(values)),
        ]
        if evaluations:
            at = [evaluation.step for evaluation in evaluations]
            losses = [evaluation.loss for evaluation in evaluations]
            curves.append(Curve("validation", at, losses, points=True))
        draw(folder / "loss.png", "Loss", "step", "nats per token", curves)
        rates = [step.rate for step in finite]
        curves = [Curve("learning rate, of its peak", numbers, rates)]
        norms = smoothed([min(step.gradient_norm, 10.0) for step in finite])
        curves.append(Curve("gradient norm, smoothed", numbers, norms))
        draw(folder / "schedule.png", "Learning rate and gradient", "step", "", curves)
        speeds = [step.tokens_per_second for step in finite]
        draw(folder / "speed.png", "Speed", "step", "tokens/s", [Curve("speed", numbers, speeds)])
        diagrams |= {"loss.png": "Loss"}
    if evaluations:
        at = [evaluation.step for evaluation in evaluations]
        bits = [evaluation.bits_per_byte for evaluation in evaluations]
        curve = Curve("validation", at, bits, points=True)
        draw(folder / "bits-per-byte.png", "Validation", "step", "bits per byte", [curve])
        diagrams |= {"bits-per-byte.png": "Bits per byte"}
    if finite:
        diagrams |= {"schedule.png": "Learning rate and gradient", "speed.png": "Speed"}
    return diagrams


def _data(manifest: Manifest) -> str:
    rows = ["| split | documents | tokens | bytes | bytes per token |", "|---|---|---|---|---|"]
    for split, shards in manifest.splits.items():
        tokens = sum(shard.tokens for shard in shards)
        documents = sum(shard.documents for shard in shards)
        size = sum(shard.bytes for shard in shards)
        rows.append(
            f"| {split} | {documents:,} | {tokens:,} | {size:,} | {size / max(1, tokens):.2f} |"
        )
    sources = [
        f"- {source.name}: {source.bytes:,} bytes, SHA-256 `{source.sha256}`"
        for source in manifest.sources
    ]
    return "\n".join([*rows, "", *sources])


def table(heading: str, lines: Mapping[str, str]) -> str:
    rows = [f"| {name} | {value} |" for name, value in lines.items()]
    return "\n".join([f"| {heading} | |", "|---|---|", *rows])


def quoted(text: str) -> str:
    """A text as a Markdown quotation that shows it as it is, whatever it holds."""
    fence = "~" * 3
    while fence in text:
        fence += "~"
    return f"{fence}text\n{text}\n{fence}"


def _spread(dreams: Sequence[Dreamed]) -> list[Dreamed]:
    """The first, the last, and some at equal distances between them."""
    if len(dreams) <= _DREAMS_SHOWN:
        return [*dreams]
    last = len(dreams) - 1
    return [dreams[round(i * last / (_DREAMS_SHOWN - 1))] for i in range(_DREAMS_SHOWN)]
