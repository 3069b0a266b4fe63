"""`oneiros eval`: how good a model is at known benchmarks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import inputs, options, output

if TYPE_CHECKING:
    from rich.progress import TaskID

    from oneiros.engine.worker import EngineSettings
    from oneiros.evaluation.asking import Outcome
    from oneiros.evaluation.items import Suite
    from oneiros.evaluation.metrics import Estimate
    from oneiros.evaluation.results import SuiteResult
    from oneiros.evaluation.suites import Selection

EXAMPLE = "oneiros eval smollm2-135m --suite piqa --suite copa --limit 200 -o answers.jsonl"


def command(
    model: options.Model,
    suite: Annotated[
        list[str],
        typer.Option(
            "--suite",
            "-s",
            metavar="NAME",
            help="A suite; several times for several. lambada, piqa, copa, winograd, winogrande, "
            "boolq, commonsense_qa, openbook_qa, repeat_copy_logic (`core`: all of these), gsm8k, "
            "spelling, counting, reversal, bits_per_byte.",
            show_default=False,
        ),
    ],
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, show_default="all", help="Ask only so many items of each suite, drawn by seed."
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="the suite's own",
            help="Solved examples before each item.",
        ),
    ] = None,
    fixed_shots: Annotated[
        bool,
        typer.Option(
            "--fixed-shots",
            help="The same examples before all items: several times as fast, and less certain.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Draws the examples, and the items of --limit.")] = 1234,
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="ONEIROS_DATA", metavar="FOLDER", help="Where the benchmarks' data are."
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The UTF-8 text of `bits_per_byte`."),
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            show_default="if the model has a chat format",
            help="Put the questions of gsm8k, spelling and counting as a conversation.",
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Keep the answer to each item (JSON lines); a run that was stopped goes on there.",
        ),
    ] = None,
    json: options.Json = False,
    threads: options.Threads = None,
    context: options.Context = None,
) -> None:
    """Measure how good a model is at known benchmarks.

    The baseline is what one gets who does not read the questions; the centred
    accuracy is 0 there, and 1 where all is right. Intervals are of 95 %.
    """
    import asyncio

    from oneiros.engine.worker import EngineSettings
    from oneiros.evaluation.suites import Selection, suite_names

    names = suite_names(suite)
    read = None if text is None else inputs.read_text(text)
    selection = Selection(data, limit, shots, seed, fixed_shots, read)
    settings = EngineSettings(
        str(inputs.model_path(model)), threads=threads, context=context, kv_disk=0
    )
    begun = time.perf_counter()
    try:
        results, usage = asyncio.run(_run(settings, model, names, selection, chat, answers))
    except KeyboardInterrupt:
        if answers is not None and answers.exists():
            output.warn(f"oneiros: stopped; the same command goes on from {answers}.")
        raise
    seconds = time.perf_counter() - begun
    if json:
        _print_json(model, results, selection, usage, seconds)
    else:
        _print_table(results, selection, usage, seconds)


async def _run(
    settings: EngineSettings,
    name: str,
    suites: list[str],
    selection: Selection,
    chat: bool | None,
    answers: Path | None,
) -> tuple[list[SuiteResult], dict[str, int]]:
    from oneiros.engine.local_model import start_local_model
    from oneiros.evaluation.answer_file import AnswerFile
    from oneiros.evaluation.evaluate import evaluate
    from oneiros.evaluation.results import suite_result
    from oneiros.evaluation.suites import build_suite

    with output.stderr().status(f"Loading {output.one_line(name)}"):
        model = await start_local_model(settings, name)
    try:
        built = [
            build_suite(
                suite,
                selection,
                tokenizer=model.tokenizer,
                context=model.context,
                chat=model.chat_format is not None if chat is None else chat,
            )
            for suite in suites
        ]
        with AnswerFile(answers, model.name, model.sha256, model.context) as file, _Bars() as bars:
            outcomes = await evaluate(model, built, file, bars.show)
        statistics = await model.service.statistics()
    finally:
        await model.service.close()
    results = [
        suite_result(suite, found, selection.seed)
        for suite, found in zip(built, outcomes, strict=True)
    ]
    return results, {
        "prompt_tokens": statistics.prompt_tokens,
        "cached_tokens": statistics.cached_tokens,
        "generated_tokens": statistics.generated_tokens,
    }


class _Bars:
    """A bar for each suite, with the score so far."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bars = output.progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[score]}", markup=False),
            TimeRemainingColumn(),
        )
        self._tasks: dict[str, tuple[TaskID, float]] = {}

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, suite: Suite, done: int, outcome: Outcome) -> None:
        """Advance a suite's bar."""
        if suite.name not in self._tasks:
            task = self._bars.add_task(suite.name, total=len(suite.items), score="")
            self._tasks[suite.name] = task, 0.0
        task, total = self._tasks[suite.name]
        total += outcome["score"]
        self._tasks[suite.name] = task, total
        self._bars.update(task, completed=done, score=f"{total / done:.3f}")


def _print_table(
    results: list[SuiteResult], selection: Selection, usage: dict[str, int], seconds: float
) -> None:
    from rich.table import Table

    from oneiros.evaluation.results import core_mean

    table = Table(box=None, pad_edge=False)
    table.add_column("suite")
    for name in ("shots", "items", "score", "95 %", "baseline", "centred"):
        table.add_column(name, justify="right")
    written = any(r.exact is not None for r in results)
    if written:
        table.add_column("written", justify="right")  # greedily, by the model itself
        table.add_column("nats", justify="right")
    for r in results:
        accuracy = r.metric == "accuracy"
        table.add_row(
            r.suite,
            str(r.shots),
            f"{r.items:,}",
            f"{r.estimate.value:.1%}" if accuracy else f"{r.estimate.value:.4f}",
            _interval(r.estimate, percent=accuracy),
            "" if r.baseline is None else f"{r.baseline:.1%}",
            "" if r.centred is None else f"{r.centred:+.3f}",
            *(["" if r.exact is None else f"{r.exact:.1%}"] if written else []),
            *(["" if r.nats is None else f"{r.nats:.2f}"] if written else []),
        )
    output.stdout().print(table)
    mean = core_mean(results, selection.seed)
    if mean is not None:
        output.say(f"\ncentred mean {mean.value:+.3f} ({mean.low:+.3f} to {mean.high:+.3f})")
    for r in results:
        if r.cut:
            output.say(
                f"{r.suite}: {r.cut:,} prompts were longer than the context; their end was kept."
            )
    output.say(
        f"{usage['prompt_tokens']:,} prompt tokens, {usage['cached_tokens']:,} of them cached, "
        f"{seconds:,.0f} s"
    )


def _interval(estimate: Estimate, *, percent: bool) -> str:
    if percent:
        return f"{estimate.low:.1%} – {estimate.high:.1%}"
    return f"{estimate.low:.4f} – {estimate.high:.4f}"


def _print_json(
    model: str,
    results: list[SuiteResult],
    selection: Selection,
    usage: dict[str, int],
    seconds: float,
) -> None:
    from dataclasses import asdict

    from oneiros.evaluation.results import core_mean

    mean = core_mean(results, selection.seed)
    output.write_json(
        {
            "model": model,
            "seed": selection.seed,
            "suites": [asdict(result) for result in results],
            "centred_mean": None if mean is None else asdict(mean),
            "usage": usage,
            "seconds": seconds,
        }
    )
