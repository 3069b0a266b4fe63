"""`oneiros chat`: talk with a model."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from oneiros.cli import generating, inputs, options
from oneiros.errors import OneirosError

EXAMPLE = "oneiros chat    or    echo hi | oneiros chat"


def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name that `oneiros models` lists, or a path.")
    ] = options.DEFAULT_MODEL,
    system: options.System = None,
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

    What is piped in is answered, and nothing but the answer printed.
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
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    question = "" if interactive else inputs.read_stdin()
    if not interactive and not question.strip():
        raise OneirosError("Nothing to answer: standard input is empty.")
    language_model = inputs.load_model(model, threads=threads, context=context)
    if interactive:
        from oneiros.cli.conversation import Conversation

        Conversation(language_model, sampling, system).run()
    else:
        generation = language_model.chat(system=system).send(question, sampling)
        generating.show(generation)
        generating.warn_if_cut(generation)
