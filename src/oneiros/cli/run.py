"""`oneiros run`: one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import generating, inputs, options, output

if TYPE_CHECKING:
    from oneiros.model.chat_format import Message

EXAMPLE = 'oneiros run smollm2-135m "Why is the sky blue?"'


def command(
    model: options.Model,
    prompt: Annotated[
        str | None, typer.Argument(help="What to answer.", show_default="standard input")
    ] = None,
    system: options.System = None,
    adapter: options.Adapter = None,
    json: options.Json = False,
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
    """Answer one prompt."""
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
    text = inputs.prompt_or_stdin(prompt, "prompt")
    language_model = inputs.load_model(model, adapter=adapter, threads=threads, context=context)
    messages: list[Message] = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    generation = language_model.stream(messages, sampling)
    if json:
        generating.consume(generation)
        output.write_json(generating.as_json(language_model, generation))
    else:
        generating.show(generation)
        generating.warn_if_cut(generation)
