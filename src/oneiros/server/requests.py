"""What requests for replies have in common: sampling, and fields that are refused or ignored.

A field is ignored only where the answer means the same without it. All other fields that this
server does not serve can be null, or have the value that changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from oneiros.engine.requests import INTERACTIVE
from oneiros.engine.sampling import SamplingOptions
from oneiros.server.errors import ApiError

MOST_CHOICES = 16
MOST_TOP_LOGPROBS = 20
MOST_ITEMS = 10_000
MOST_TOOLS = 512
_MOST_FIELDS = 100
_LARGEST = 2**31 - 1

StopText = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenText = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Ignored = Annotated[Any, Field(description="Accepted, and without effect here.")]

# Told of one mistake only: a report of all in a large body would take seconds and much memory.
FIRST_MISTAKE = Field(fail_fast=True)
ITEMS = Field(max_length=MOST_ITEMS, fail_fast=True)
SOME_ITEMS = Field(min_length=1, max_length=MOST_ITEMS, fail_fast=True)


class Strict(BaseModel):
    """JSON that means what it says: unknown fields are errors, and texts are no numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_number_of_fields(cls, value: Any) -> Any:
        """Raise ValueError before each of many unknown fields becomes an error of its own."""
        if isinstance(value, dict) and len(value) > _MOST_FIELDS:
            raise ValueError(f"an object has more than {_MOST_FIELDS} fields.")
        return value


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class SamplingFields(Strict):
    """The fields of chats and completions that say how a reply is drawn.

    What is not given has the default of the engine's own sampling, not OpenAI's.
    """

    model: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=_LARGEST)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-100, le=100)
    frequency_penalty: float | None = Field(None, ge=-100, le=100)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    logit_bias: Annotated[dict[TokenText, Bias], FIRST_MISTAKE] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stop: StopText | Annotated[list[StopText], Field(max_length=MOST_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: int | None = Field(
        None, ge=INTERACTIVE, le=100, description="Lower runs first; a key's class is its limit."
    )
    user: Ignored = None
    metadata: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    prediction: Ignored = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def stop_texts(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with a chunk that tells the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, vocabulary: int, max_tokens: int | None) -> SamplingOptions:
        """The engine's options.

        Args:
            vocabulary: the number of tokens of the model.
            max_tokens: what the request says about it, whatever the field is called.

        Raises:
            ApiError: 400; `logit_bias` names a token that does not exist, or there are
                `stream_options` without a stream.
        """
        if self.stream_options is not None and not self.stream:
            message = "stream_options is for streams: set stream to true, or leave it out."
            raise ApiError(400, message, param="stream_options", code="invalid_value")
        given = {
            name: value
            for name in (
                "temperature",
                "top_p",
                "top_k",
                "min_p",
                "presence_penalty",
                "frequency_penalty",
                "repetition_penalty",
                "seed",
            )
            if (value := getattr(self, name)) is not None
        }
        bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        unknown = next((token for token in bias if token >= vocabulary), None)
        if unknown is not None:
            message = f"logit_bias names token {unknown}; the model has {vocabulary}."
            raise ApiError(400, message, param="logit_bias", code="invalid_value")
        return SamplingOptions(**given, logit_bias=bias, max_tokens=max_tokens)
