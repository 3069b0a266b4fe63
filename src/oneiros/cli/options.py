"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from oneiros.engine.sampling import SamplingOptions

# The catalog's; and the defaults further down are those of SamplingOptions. Both modules are too
# heavy to import for --help. A test compares.
DEFAULT_MODEL = "smollm2-135m"

MAX_TOKENS = 2048
"""Small models sometimes repeat themselves for ever; this ends it before the context does."""

_SAMPLING = "Sampling"
_MACHINE = "Machine"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A name that `oneiros models` lists, or a path.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace the output if it exists.")]

Quarantine = Annotated[
    bool,
    typer.Option("--quarantine", help="Keep what others wrote from the model, behind handles."),
]

Adapter = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        show_default="none",
        help="A LoRA adapter to add: of `oneiros train chat --lora`, or PEFT's.",
    ),
]

Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        show_default="the cores this process may use",
        help="Threads to compute with.",
        rich_help_panel=_MACHINE,
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        min=1,
        show_default="the model's",
        help="Tokens that prompt and reply may take together.",
        rich_help_panel=_MACHINE,
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", show_default="the model's own", help="What the model is told about its job."
    ),
]

MaxTokens = Annotated[
    int,
    typer.Option(help="Tokens after which a reply is cut.", rich_help_panel=_SAMPLING),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        show_default="0.8",
        help="0: always the likeliest token; higher: more variety.",
        rich_help_panel=_SAMPLING,
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        show_default="40",
        help="Choose among the K likeliest tokens; 0: all.",
        rich_help_panel=_SAMPLING,
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        show_default="0.95",
        help="Choose among the likeliest tokens that together have this probability.",
        rich_help_panel=_SAMPLING,
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        show_default="0.05",
        help="Leave out tokens this many times less likely than the likeliest.",
        rich_help_panel=_SAMPLING,
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(
        show_default="1.0",
        help="Above 1: tokens of the prompt and the reply become less likely.",
        rich_help_panel=_SAMPLING,
    ),
]
PresencePenalty = Annotated[
    float | None,
    typer.Option(
        show_default="0.0",
        help="Taken off the logit of each token in the reply so far.",
        rich_help_panel=_SAMPLING,
    ),
]
FrequencyPenalty = Annotated[
    float | None,
    typer.Option(
        show_default="0.0",
        help="Taken off a token's logit for each time it is in the reply so far.",
        rich_help_panel=_SAMPLING,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        show_default="a different one each time",
        help="The same seed gives the same reply.",
        rich_help_panel=_SAMPLING,
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        help="End a reply before this text; may be given several times.",
        rich_help_panel=_SAMPLING,
    ),
]


def sampling_options(**chosen: Any) -> SamplingOptions:
    """SamplingOptions of what was given on the command line, its own defaults for the rest.

    Raises InvalidSamplingError for values out of range.
    """
    from oneiros.engine.sampling import SamplingOptions

    given = {name: value for name, value in chosen.items() if value is not None}
    if "stop" in given:
        given["stop"] = tuple(given["stop"])
    return SamplingOptions(**given)
