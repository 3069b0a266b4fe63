"""`oneiros complete`: let the model dream on from a text."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from oneiros.cli import generating, inputs, options, output

EXAMPLE = 'oneiros complete smollm2-135m "Once upon a time" --max-tokens 100'


def command(
    model: options.Model,
    text: Annotated[
        str | None, typer.Argument(help="How the document begins.", show_default="standard input")
    ] = None,
    adapter: options.Adapter = None,
    json: options.Json = False,
    max_tokens: Annotated[
        int, typer.Option(help="Tokens to add.", rich_help_panel="Sampling")
    ] = 256,
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
    """Continue a text: no chat, no roles, just what comes next.

    On a terminal the text is shown before its continuation; a pipe gets the continuation alone.
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
    beginning = inputs.prompt_or_stdin(text, "text")
    language_model = inputs.load_model(model, adapter=adapter, threads=threads, context=context)
    generation = language_model.complete(beginning, sampling)
    if json:
        generating.consume(generation)
        output.write_json(generating.as_json(language_model, generation))
        return
    if sys.stdout.isatty():
        output.stdout().print(output.printable(beginning), style="bold", end="", markup=False)
    generating.show(generation)
