"""A loaded model, for programs: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneiros.engine.engine import Engine
from oneiros.engine.generation import Generation
from oneiros.engine.packing import Progress
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.sequence import Sequence
from oneiros.errors import ModelFileError
from oneiros.model.adapter import open_adapter
from oneiros.model.chat_format import ChatFormat, Message, load_chat_format
from oneiros.model.folders import cache_folder
from oneiros.model.parameters import Parameters, open_parameters
from oneiros.model.tokenizer import Tokenizer, load_tokenizer

__all__ = ["Chat", "Generation", "LanguageModel", "Message", "NextToken", "load"]


@dataclass(frozen=True, slots=True)
class NextToken:
    """A candidate for the next token."""

    id: int
    text: str
    probability: float
    logprob: float  # nats


class LanguageModel:
    """A model and its tokenizer, ready to run. `oneiros.load` makes one."""

    def __init__(
        self,
        name: str,
        parameters: Parameters,
        tokenizer: Tokenizer,
        chat_format: ChatFormat | None,
        engine: Engine,
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.tokenizer = tokenizer
        self.chat_format = chat_format
        self.engine = engine

    @property
    def context(self) -> int:
        """Tokens that prompt and reply may take together."""
        return self.engine.context

    def stream(
        self, prompt: str | Items[Message], options: SamplingOptions | None = None
    ) -> Generation:
        """Answer a question, or the last of some messages, piece by piece.

        Raises:
            ModelFileError: the model has no chat format.
            ContextLengthError: the prompt does not fit.
            TokenizationError: the vocabulary cannot express the prompt.
        """
        asked: Message = {"role": "user", "content": prompt if isinstance(prompt, str) else ""}
        messages = [asked] if isinstance(prompt, str) else prompt
        ids = self._format().render(messages, add_generation_prompt=True)
        return self._generation(self.engine.sequence(), ids, options)

    def complete(self, text: str, options: SamplingOptions | None = None) -> Generation:
        """Continue a text as the documents the model was trained on would go on.

        Raises:
            ContextLengthError, TokenizationError: as `stream`.
        """
        return self._generation(self.engine.sequence(), self._raw_prompt(text), options)

    def chat(self, system: str | None = None) -> Chat:
        """A conversation that keeps its keys and values from one message to the next."""
        return Chat(self, system)

    def next_tokens(self, text: str, count: int = 10) -> list[NextToken]:
        """The most probable tokens after a text, in descending order."""
        logits = self.engine.sequence().extend(self._raw_prompt(text))
        assert logits is not None  # "last" was asked for
        exact = logits.astype(np.float64)
        logprobs = exact - exact.max()
        logprobs -= np.log(np.exp(logprobs).sum())
        best = np.argsort(-logprobs, kind="stable")[:count]
        return [
            NextToken(
                int(i),
                self.tokenizer.token_text(int(i)),
                float(np.exp(logprobs[i])),
                float(logprobs[i]),
            )
            for i in best
        ]

    def log_probabilities(self, ids: Items[int]) -> NDArray[np.float64]:
        """log p(ids[i + 1] | ids[: i + 1]) in nats, (len(ids) - 1,)."""
        return self.engine.log_probabilities(self.engine.sequence(), ids)

    def _raw_prompt(self, text: str) -> list[int]:
        ids = self.tokenizer.prompt_ids(text)
        if ids:
            return ids
        # Nothing to continue: a text begins after the token that ends or begins texts.
        start = (
            self.tokenizer.bos_id if self.tokenizer.bos_id is not None else self.tokenizer.eos_id
        )
        return [0 if start is None else start]

    def _format(self) -> ChatFormat:
        if self.chat_format is None:
            raise ModelFileError(
                f"{self.name} has no chat template: it is a base model, which continues texts. "
                "Use `oneiros complete`, or an instruction-tuned model."
            )
        return self.chat_format

    def _generation(
        self, sequence: Sequence, ids: list[int], options: SamplingOptions | None
    ) -> Generation:
        end_ids = self.tokenizer.end_ids
        if self.chat_format is not None:
            end_ids |= self.chat_format.stop_ids
        return Generation(sequence, ids, options or SamplingOptions(), self.tokenizer, end_ids)


class Chat:
    """A conversation. What the model generated stays as the tokens it generated."""

    def __init__(self, model: LanguageModel, system: str | None = None) -> None:
        """Raises ModelFileError if the model has no chat format."""
        self._model = model
        self._format = model._format()
        self._sequence = model.engine.sequence()
        self._system: list[Message] = []
        if system is not None:
            self._system.append({"role": "system", "content": system})
        self._turns: list[Message] = []
        self._reply: Generation | None = None

    @property
    def messages(self) -> list[Message]:
        """The conversation so far, an unfinished reply included."""
        said = [*self._system, *self._turns]
        if self._reply is not None:
            said.append({"role": "assistant", "content": self._reply.text})
        return said

    def send(self, text: str, options: SamplingOptions | None = None) -> Generation:
        """Answer the next message of the user. An earlier reply that still runs is cancelled.

        Raises:
            ContextLengthError, TokenizationError: as LanguageModel.stream; nothing was sent.
        """
        if self._reply is not None:
            self._reply.cancel()
        asked: Message = {"role": "user", "content": text}
        messages = [*self.messages, asked]
        keep, ids = self._continuation(messages)
        if keep < len(self._sequence):
            fork = self._sequence.fork()
            fork.truncate(keep)
            self._sequence = fork
        reply = self._model._generation(self._sequence, ids, options)
        self._turns = messages[len(self._system) :]
        self._reply = reply
        return reply

    def _continuation(self, messages: list[Message]) -> tuple[int, list[int]]:
        """How many tokens of the sequence stay, and which ones follow.

        Usually the sequence stays as it is, and what the template puts behind a reply follows. A
        template that rewrites what was said (Qwen3's drops old reasoning), a reply cancelled
        before it began, or one cut at a stop text, costs a part of it.
        """
        reply = self._reply
        if reply is not None and not reply.cut and len(self._sequence) == reply.length:
            more = self._format.continuation(messages[:-2], reply.text, messages[-1:])
            if more is not None:
                return len(self._sequence), more
        ids = self._format.render(messages, add_generation_prompt=True)
        same = 0
        for ours, theirs in zip(self._sequence.tokens, ids[:-1], strict=False):
            if ours != theirs:
                break
            same += 1
        return same, ids[same:]


def load(
    path: Path,
    name: str,
    *,
    adapter: Path | None = None,
    threads: int | None = None,
    context: int | None = None,
    progress: Progress | None = None,
) -> LanguageModel:
    """Open a GGUF file or a Hugging Face folder; see `Engine` for the arguments and errors.

    `adapter` is a folder that `open_adapter` reads.
    """
    parameters = open_parameters(path)
    added = None if adapter is None else open_adapter(adapter, parameters)
    tokenizer = load_tokenizer(parameters)
    chat_format = load_chat_format(parameters, tokenizer)
    cache = cache_folder() / "packed"
    engine = Engine(
        parameters,
        adapter=added,
        threads=threads,
        context=context,
        cache=cache,
        progress=progress,
    )
    name = name if added is None else f"{name}+{added.name}"
    return LanguageModel(name, parameters, tokenizer, chat_format, engine)
