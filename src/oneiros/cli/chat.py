"""`oneiros chat`: talk with a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import generating, inputs, kernel, options
from oneiros.errors import OneirosError

if TYPE_CHECKING:
    from oneiros.engine.language_model import LanguageModel
    from oneiros.engine.sampling import SamplingOptions
    from oneiros.kernel.control_client import ControlClient

EXAMPLE = "oneiros chat    or    echo hi | oneiros chat"


def command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A name that `oneiros models` lists, or a path.",
            show_default=f"the running kernel's, or {options.DEFAULT_MODEL}",
        ),
    ] = None,
    system: options.System = None,
    adapter: options.Adapter = None,
    tools: Annotated[
        bool, typer.Option("--tools/--no-tools", help="Whether the model may call tools.")
    ] = True,
    quarantine: options.Quarantine = False,
    max_tokens: options.MaxTokens = options.MAX_TOKENS,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    presence_penalty: options.PresencePenalty = None,
    frequency_penalty: options.FrequencyPenalty = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    threads: options.Threads = None,
    context: options.Context = None,
) -> None:
    """Talk with a model. The default model is fetched the first time.

    On a terminal it talks through the running kernel; where none runs, one is started, and ends
    with the chat. What is piped in is answered by the model alone, and nothing but the answer
    printed.
    """
    sampling = options.sampling_options(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        seed=seed,
        stop=stop,
    )
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        load = partial(
            inputs.load_model,
            model or options.DEFAULT_MODEL,
            adapter=adapter,
            threads=threads,
            context=context,
        )
        _answer(load, system, sampling)
        return
    from oneiros.cli.conversation import Conversation

    with _kernel(model, threads, context, adapter) as client:
        Conversation(
            client,
            system=system,
            model=model,
            sampling=_plain(sampling),
            tools=tools,
            quarantine=quarantine,
        ).run()


def _answer(
    load: Callable[[], LanguageModel], system: str | None, sampling: SamplingOptions
) -> None:
    question = inputs.read_stdin()
    if not question.strip():
        raise OneirosError("Nothing to answer: standard input is empty.")
    generation = load().chat(system=system).send(question, sampling)
    generating.show(generation)
    generating.warn_if_cut(generation)


@contextmanager
def _kernel(
    model: str | None, threads: int | None, context: int | None, adapter: Path | None
) -> Iterator[ControlClient]:
    """The running kernel, or one that ends with the block."""
    from oneiros.cli.local_kernel import kernel_here
    from oneiros.kernel.control_client import is_running

    client = kernel.client()
    if not is_running(client.folder):
        name = model or options.DEFAULT_MODEL
        with kernel_here(name, threads=threads, context=context, adapter=adapter):
            yield client
        return
    if threads is not None or context is not None or adapter is not None:
        raise OneirosError("A kernel runs already: leave out --threads, --context and --adapter.")
    yield client


def _plain(sampling: SamplingOptions) -> dict[str, object]:
    """Sampling options as JSON data."""
    return {
        name: getattr(sampling, name)
        for name in sampling.__dataclass_fields__
        if name != "logit_bias"
    }
