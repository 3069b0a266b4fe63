"""What is asked of an engine that serves many, and what it answers.

Only token ids are in here: texts, messages and tool calls are made of them by whoever asks. All of
it is plain data, because it crosses from one process to another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from oneiros.engine.sampling import SamplingOptions

FinishReason = Literal["stop", "length", "cancelled"]

INTERACTIVE = 0
BACKGROUND = 10


@dataclass(frozen=True, slots=True)
class ConstraintSpec:
    """What a reply's text must look like.

    `value` is, for "json_schema", the schema as JSON text; for "regex" a regular expression that
    the whole text matches; for "choice" a JSON list of texts; for "lark" a grammar in llguidance's
    dialect.
    """

    kind: Literal["json_schema", "regex", "choice", "lark"]
    value: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One reply to generate."""

    prompt: tuple[int, ...]  # token ids, at least one
    sampling: SamplingOptions = field(default_factory=SamplingOptions)  # its `stop` is not used
    end_ids: frozenset[int] = frozenset()  # tokens that end the reply
    principal: str = "local"  # who asks; shares are fair between principals, pages are theirs alone
    priority: int = INTERACTIVE  # lower runs first
    public_prefix: int = 0  # first tokens of the prompt whose pages may serve every principal
    constraint: ConstraintSpec | None = None
    top_logprobs: int | None = None  # None: no log-probabilities; n: those of n alternatives too
    prompt_logprobs: int | None = None  # the same for the prompt's own tokens
    prompt_logprobs_from: int = 1  # ... from this token on; what is before need not be computed
    speculate: bool = True  # draft from the prompt; never changes what is generated

    @property
    def reusable(self) -> int:
        """First tokens of the prompt whose logits nobody wants: a cached prefix may hold them."""
        last = len(self.prompt) - 1
        if self.prompt_logprobs is None:
            return last
        return max(0, min(self.prompt_logprobs_from - 1, last))


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability in nats, before temperature and constraints."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the likeliest (token, logprob), in descending order


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reply took."""

    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, whose keys and values were there already
    generated_tokens: int = 0  # without the token that ended it
    drafted_tokens: int = 0  # by speculation
    accepted_tokens: int = 0  # of the drafted ones
    queue_seconds: float = 0.0
    prefill_seconds: float = 0.0  # from the first prompt token read to the first one generated
    decode_seconds: float = 0.0  # from then to the end

    @property
    def computed_tokens(self) -> int:
        """Tokens whose keys and values had to be computed."""
        return self.prompt_tokens - self.cached_tokens + self.generated_tokens


@dataclass(frozen=True, slots=True)
class PromptRead:
    """The prompt was read; comes once, before all tokens."""

    cached_tokens: int  # of the prompt, whose keys and values were there already
    logprobs: tuple[TokenLogprob, ...] = ()  # where asked for: of each token but the first ones


@dataclass(frozen=True, slots=True)
class Tokens:
    """The next tokens of a reply; usually one."""

    ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()  # as many as ids, or none


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a reply; nothing comes after it."""

    reason: FinishReason
    usage: Usage


Output = PromptRead | Tokens | Finished


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """The state of a serving engine, and totals since its process began."""

    waiting: int = 0  # requests that have no sequence yet
    running: int = 0  # sequences that are being extended
    parked: int = 0  # sequences that had to make room; their keys and values are kept
    page_bytes: int = 0
    pages_limit: int = 0
    pages_used: int = 0  # held by sequences
    pages_cached: int = 0  # held by the prefix cache, also where a sequence uses them
    pages_stored: int = 0  # on disk
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of these, found in the prefix cache
    generated_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    steps: int = 0
    rows: int = 0  # tokens computed in all steps: rows / steps is the mean batch
    busy_seconds: float = 0.0  # computing steps and drawing tokens
    idle_seconds: float = 0.0  # with nothing to do
    preemptions: int = 0
    stalled_seconds: float = 0.0  # since the last look at what there is to do, while replies run
    restarts: int = 0  # of the engine's process
