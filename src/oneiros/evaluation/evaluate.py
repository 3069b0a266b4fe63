"""Asking a model all items of some suites, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from oneiros.engine.local_model import LocalModel
from oneiros.evaluation.answer_file import AnswerFile
from oneiros.evaluation.asking import Outcome, ask
from oneiros.evaluation.items import Item, Suite, prompt_sha256

AT_ONCE = 24
"""Items under way. The engine batches their tokens; more would hold memory and gain nothing."""

Progress = Callable[[Suite, int, Outcome], None]
"""Told of each outcome: the suite, how many of its items are done, and the outcome."""


async def evaluate(
    model: LocalModel,
    suites: Sequence[Suite],
    answers: AnswerFile,
    progress: Progress,
) -> list[dict[int, Outcome]]:
    """The outcomes of each suite's items, by their numbers.

    What `answers` has is not asked again, and each new outcome is there when `progress` is told.

    Raises as `ask` and AnswerFile.add.
    """
    return [await _evaluate_suite(model, suite, answers, progress) for suite in suites]


async def _evaluate_suite(
    model: LocalModel, suite: Suite, answers: AnswerFile, progress: Progress
) -> dict[int, Outcome]:
    outcomes: dict[int, Outcome] = {}
    open_items: list[tuple[int, Item, str]] = []
    for index, item in suite.items.items():
        digest = prompt_sha256(item)
        outcome = answers.find(suite.name, index, digest)
        if outcome is None:
            open_items.append((index, item, digest))
        else:
            outcomes[index] = outcome
            progress(suite, len(outcomes), outcome)
    queue = iter(open_items)

    async def work(items: Iterator[tuple[int, Item, str]]) -> None:
        for index, item, digest in items:
            outcome = await ask(model, item)
            answers.add(suite.name, index, digest, outcome)
            outcomes[index] = outcome
            progress(suite, len(outcomes), outcome)

    workers = [asyncio.create_task(work(queue)) for _ in range(min(AT_ONCE, len(open_items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return dict(sorted(outcomes.items()))
