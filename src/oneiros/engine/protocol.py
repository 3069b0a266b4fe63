"""Messages between a server and its engine's process: one line of JSON each.

To the engine: {"op": "generate", "number", "request", "resumed"}, {"op": "cancel", "number"},
{"op": "statistics"}, {"op": "close"}. From it: {"ready": ...} once, then lists of answers
[number, kind, ...] after each step, and {"statistics": ...}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from oneiros import errors
from oneiros.engine.requests import (
    ConstraintSpec,
    EngineStatistics,
    Finished,
    GenerationRequest,
    Output,
    PromptRead,
    TokenLogprob,
    Tokens,
    Usage,
)
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import EngineFailedError, OneirosError

Answer = tuple[int, Output | OneirosError]

LONGEST_LINE = 1 << 26  # bytes


def line(message: object) -> bytes:
    """A message as it is sent."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def request_to_json(request: GenerationRequest) -> dict[str, Any]:
    """A request as JSON data."""
    constraint = request.constraint
    sampling = {
        name: getattr(request.sampling, name) for name in SamplingOptions.__dataclass_fields__
    }
    sampling["logit_bias"] = list(request.sampling.logit_bias.items())
    fields = {name: getattr(request, name) for name in GenerationRequest.__dataclass_fields__}
    return fields | {
        "sampling": sampling,
        "end_ids": sorted(request.end_ids),
        "constraint": None if constraint is None else [constraint.kind, constraint.value],
    }


def request_from_json(data: Mapping[str, Any]) -> GenerationRequest:
    """What `request_to_json` made."""
    constraint = data["constraint"]
    sampling = data["sampling"] | {
        "logit_bias": dict(data["sampling"]["logit_bias"]),
        "stop": tuple(data["sampling"]["stop"]),
    }
    fields = dict(data) | {
        "prompt": tuple(data["prompt"]),
        "sampling": SamplingOptions(**sampling),
        "end_ids": frozenset(data["end_ids"]),
        "constraint": None if constraint is None else ConstraintSpec(*constraint),
    }
    return GenerationRequest(**fields)


def answers_to_json(answers: Iterable[Answer]) -> list[list[Any]]:
    """Answers of a step as JSON data."""
    return [[number, *_answer_to_json(answer)] for number, answer in answers]


def answers_from_json(data: Iterable[list[Any]]) -> list[Answer]:
    """What `answers_to_json` made."""
    return [(number, _answer_from_json(kind, rest)) for number, kind, *rest in data]


def statistics_from_json(data: Mapping[str, Any]) -> EngineStatistics:
    """The statistics that an engine's process sent."""
    return EngineStatistics(**data)


def _answer_to_json(answer: Output | OneirosError) -> list[Any]:
    match answer:
        case Tokens():
            return ["tokens", answer.ids, [_logprob_to_json(p) for p in answer.logprobs]]
        case Finished():
            return ["finished", answer.reason, asdict(answer.usage)]
        case PromptRead():
            logprobs = [_logprob_to_json(p) for p in answer.logprobs]
            return ["prompt", answer.cached_tokens, logprobs]
    return ["error", type(answer).__name__, str(answer)]


def _answer_from_json(kind: str, rest: list[Any]) -> Output | OneirosError:
    match kind, rest:
        case "tokens", [ids, logprobs]:
            return Tokens(tuple(ids), tuple(map(_logprob_from_json, logprobs)))
        case "finished", [reason, usage]:
            return Finished(reason, Usage(**usage))
        case "prompt", [cached, logprobs]:
            return PromptRead(cached, tuple(map(_logprob_from_json, logprobs)))
        case "error", [name, message]:
            found: OneirosError = getattr(errors, name, EngineFailedError)(message)
            return found
    raise EngineFailedError(f"The engine's process sent an answer of kind {kind!r}.")


def _logprob_to_json(logprob: TokenLogprob) -> list[Any]:
    return [logprob.token, logprob.logprob, logprob.top]


def _logprob_from_json(data: list[Any]) -> TokenLogprob:
    token, logprob, top = data
    return TokenLogprob(token, logprob, tuple((token, value) for token, value in top))
