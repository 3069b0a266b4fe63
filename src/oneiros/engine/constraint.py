"""Which tokens may come next, where a reply has to follow a schema, an expression or a grammar.

llguidance compiles the constraint and computes a mask over the vocabulary for each token
(https://github.com/guidance-ai/llguidance). Here are its tokenizer, made of ours; the translation
of a `ConstraintSpec`; and the state of one reply, whose failures are errors of Oneiros.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence as Items
from concurrent.futures import Future

import llguidance
import numpy as np
from numpy.typing import NDArray

from oneiros.engine.library import kernels
from oneiros.engine.requests import ConstraintSpec
from oneiros.errors import ConstraintError, TokenizationError
from oneiros.model.json_schema import enforceable_schema
from oneiros.model.tokenizer import Tokenizer
from oneiros.model.tool_calls import MARKS
from oneiros.model.vocabulary import TokenKind

_LONGEST_TEXT = 1 << 18  # characters of a grammar; what takes longer to compile is no constraint
_COMPILED_KEPT = 64

# The grammar compiler recurses once for each rule of a chain, at up to 10 kB, and the end of the
# stack would be the end of the process. The memory is only used as far as a grammar reaches.
_COMPILER_STACK = 512 << 20
_starting = threading.Lock()  # the size of stacks is one setting for all threads


class ConstraintCompiler:
    """Makes constraints for one tokenizer. May be used by several threads."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, end_ids: frozenset[int]) -> None:
        """Nothing is computed before the first constraint is compiled.

        Args:
            tokenizer: the model's.
            vocabulary: how many logits the model gives.
            end_ids: tokens that end a reply.
        """
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._end_ids = end_ids
        self._lock = threading.Lock()
        self._tokens: llguidance.LLTokenizer | None = None
        self._preparing = threading.Lock()  # of the tokenizer
        self._compiled: OrderedDict[ConstraintSpec, Future[llguidance.LLMatcher]] = OrderedDict()

    def compile(self, spec: ConstraintSpec) -> Constraint:
        """The constraint at the beginning of a reply.

        Different ones are compiled side by side, and one that is being compiled is waited for.

        Raises:
            ConstraintError: it is malformed, too large, or asks for what cannot be enforced; the
                message says where.
        """
        with self._lock:
            future = self._compiled.get(spec)
            ours = None
            if future is None:
                future = ours = self._compiled[spec] = Future()
                if len(self._compiled) > _COMPILED_KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(spec)
        if ours is not None:
            self._fulfil(ours, spec)
        matcher = future.result()
        # Without tokens that end a reply there is a bit more, for its end.
        bits = self._vocabulary + (not self._end_ids)
        with self._lock:  # one copy at a time is made of a matcher
            return Constraint(matcher.deep_copy(), -(-bits // 32))

    def _fulfil(self, future: Future[llguidance.LLMatcher], spec: ConstraintSpec) -> None:
        """Give a future its result, or the error that whoever waits for it raises too."""
        try:
            future.set_result(compiled(self._tokenizer_of_llguidance(), _grammar(spec)))
        except ConstraintError as error:
            future.set_exception(error)
        finally:
            if not future.done():
                future.set_exception(ConstraintError("The constraint could not be compiled."))
            if future.exception() is not None:
                with self._lock:
                    if self._compiled.get(spec) is future:
                        del self._compiled[spec]

    def _tokenizer_of_llguidance(self) -> llguidance.LLTokenizer:
        with self._preparing:
            if self._tokens is None:
                self._tokens = _llguidance_tokenizer(
                    self._tokenizer, self._vocabulary, self._end_ids
                )
            return self._tokens


class Constraint:
    """The state of one reply under a constraint; used by one thread at a time.

    Attributes:
        mask: uint32 (ceil(vocabulary / 32),); bit i % 32 of element i // 32 is set where token i
            may come next. Filled by `compute_mask`.
    """

    def __init__(self, matcher: llguidance.LLMatcher, words: int) -> None:
        self._matcher = matcher
        self.mask: NDArray[np.uint32] = np.zeros(words, np.uint32)

    def compute_mask(self) -> None:
        """Fill `mask`; of a complete reply only tokens that end it are allowed.

        Releases the GIL, so that it can run beside the forward pass.

        Raises:
            ConstraintError: nothing can follow what was consumed, or a limit was exceeded.
        """
        self._matcher.unsafe_compute_mask_ptr(self.mask.ctypes.data, self.mask.nbytes)
        self._check()

    def consume(self, tokens: Items[int]) -> None:
        """Go on by tokens that were sampled or forced, without one that ended the reply.

        Raises:
            ConstraintError: one of them is not allowed, or a limit was exceeded.
        """
        if tokens and not self._matcher.consume_tokens(list(tokens)):
            self._check()

    def forced(self) -> list[int]:
        """Tokens that are the only ones to come next; not consumed yet, [] where there is a choice.

        Raises:
            ConstraintError: as `compute_mask`.
        """
        tokens = self._matcher.compute_ff_tokens()
        self._check()
        return tokens

    @property
    def stopped(self) -> bool:
        """Whether the reply is complete and nothing but its end may follow."""
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    @property
    def accepting(self) -> bool:
        """Whether the reply could end here."""
        return self._matcher.is_accepting()

    def copy(self) -> Constraint:
        """The same state, to go on differently."""
        return Constraint(self._matcher.deep_copy(), self.mask.size)

    def rollback(self, count: int) -> None:
        """Take back the last `count` consumed tokens.

        Raises:
            ValueError: fewer were consumed.
        """
        if count and not self._matcher.rollback(count):
            raise ValueError(f"{count} tokens cannot be taken back: {self._matcher.get_error()}")

    def _check(self) -> None:
        failed, message = self._matcher.is_error(), self._matcher.get_error()
        if "NoExtension" in message or (
            not failed and self._matcher.is_stopped() and not self._matcher.is_accepting()
        ):
            raise ConstraintError(
                "No token of the model can continue the reply under its constraint: it excludes "
                "everything, or asks for characters that the model's vocabulary lacks."
            )
        if failed:
            raise ConstraintError(f"The constraint cannot be followed: {_brief(message)}")


def apply_mask(logits: NDArray[np.float32], mask: NDArray[np.uint32]) -> None:
    """Set the logits of tokens that are not allowed to minus infinity, in place.

    Args:
        logits: float32 (vocabulary,), contiguous.
        mask: of a `Constraint` for that vocabulary.

    Raises:
        ValueError: other types or sizes.
    """
    if logits.dtype != np.float32 or logits.ndim != 1 or not logits.flags.c_contiguous:
        raise ValueError("Logits to mask are a contiguous vector of float32.")
    if mask.dtype != np.uint32 or mask.size * 32 < logits.size or not mask.flags.c_contiguous:
        raise ValueError(f"A mask of {mask.size} words for {logits.size} logits.")
    kernels().oneiros_mask_logits(logits.ctypes.data, mask.ctypes.data, logits.size)


def _limits() -> llguidance.LLParserLimits:
    """Work is counted, not timed, so that the same grammar is refused on every machine."""
    return llguidance.LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_items_in_row=2_000,
        max_lexer_states=50_000,  # of 1-2 kB each
        max_grammar_size=200_000,
        verbose_errors=False,
    )


def compiled(tokens: llguidance.LLTokenizer, grammar: str) -> llguidance.LLMatcher:
    """The beginning of what a grammar, in llguidance's own form, allows.

    Raises:
        ConstraintError: it is malformed or too large.
    """
    made: list[llguidance.LLMatcher] = []

    def compile_grammar() -> None:
        made.append(llguidance.LLMatcher(tokens, grammar, log_level=0, limits=_limits()))

    thread = threading.Thread(target=compile_grammar, name="oneiros-constraint")
    with _starting:
        before = threading.stack_size(_COMPILER_STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if not made:
        raise ConstraintError("The constraint could not be compiled.")
    if made[0].is_error():
        raise ConstraintError(f"The constraint cannot be used: {_brief(made[0].get_error())}")
    return made[0]


def _grammar(spec: ConstraintSpec) -> str:
    """A specification in llguidance's own form."""
    if len(spec.value) > _LONGEST_TEXT:
        raise ConstraintError(
            f"The {spec.kind} has {len(spec.value):,} characters; at most {_LONGEST_TEXT:,} "
            "are allowed."
        )
    _check_characters(spec.value, spec.kind)
    match spec.kind:
        case "json_schema":
            schema = enforceable_schema(parsed_json(spec.value, "schema"))
            return llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(schema, ensure_ascii=False)
            )
        case "regex":
            return llguidance.LLMatcher.grammar_from_regex(spec.value)
        case "choice":
            return llguidance.LLMatcher.grammar_from_lark(choice_grammar(spec.value))
        case "lark":
            return llguidance.LLMatcher.grammar_from_lark(spec.value)


def parsed_json(text: str, what: str) -> object:
    """The value of a constraint that is JSON; raises ConstraintError if it is not."""
    try:
        value: object = json.loads(text)
    except ValueError as error:  # also about numbers of thousands of digits
        raise ConstraintError(f"The {what} is not JSON: {error}.") from error
    except RecursionError as error:
        raise ConstraintError(f"The {what} is nested too deeply.") from error
    return value


def _check_characters(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConstraintError(
            f"The {what} holds half of a surrogate pair, which is no character, at {error.start}."
        ) from error


def choice_grammar(text: str) -> str:
    """The value of a choice in llguidance's dialect of Lark.

    Raises:
        ConstraintError: it is no list of texts.
    """
    texts = parsed_json(text, "choice")
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise ConstraintError("A choice is a JSON list of at least one text.")
    for i, choice in enumerate(texts):
        _check_characters(choice, f"choice {i}")
    return "start: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def _brief(message: str) -> str:
    """A message of llguidance's as one line: the excerpts of the grammar under it left out."""
    message = re.sub(r"<non-verbose/>| while processing json-schema:\S*", "", message)
    lines = [line.strip() for line in message.splitlines()]
    kept = [line for line in lines if line and not re.match(r"\d+ \|", line) and set(line) != {"^"}]
    text = " ".join(kept)
    return text if len(text) <= 400 else text[:400] + "..."


class _Vocabulary:
    """Our tokenizer as llguidance wants it; the attributes' names are its."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, end_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        kinds = tokenizer.vocabulary.kinds
        # What text can never become must not match as text either. Added tokens that models write
        # as part of their text, such as <tool_call>, match as the text they stand for.
        special = {
            token_id
            for text, token_id in tokenizer.added_tokens.items()
            if text not in MARKS
            and (kinds[token_id] != TokenKind.USER_DEFINED or text.startswith("<|"))
        } | end_ids
        self.eos_token_id = min(end_ids, default=vocabulary)
        self.bos_token_id = tokenizer.bos_id
        self.special_token_ids = sorted(special)
        known = min(vocabulary, tokenizer.vocabulary_size)
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(known)]
        self.tokens += [b""] * (vocabulary - known)
        if not end_ids:
            self.tokens.append(b"<|end|>")
            self.special_token_ids.append(vocabulary)
        plain = [text for text, i in tokenizer.added_tokens.items() if i not in special]
        longest_first = sorted(plain, key=len, reverse=True)
        self._added = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if plain else None

    def __call__(self, text: bytes) -> list[int]:
        """Token ids of text inside a reply, as the model would write it."""
        parts = self._added.split(text.decode()) if self._added else [text.decode()]
        added = self._tokenizer.added_tokens
        try:
            return self._tokenizer.encode_parts(
                [added.get(part, part) for part in parts], opens=False
            )
        except TokenizationError:
            return []  # no token stands for it: the mask will be empty there


def _llguidance_tokenizer(
    tokenizer: Tokenizer, vocabulary: int, end_ids: frozenset[int]
) -> llguidance.LLTokenizer:
    wrapper = llguidance.TokenizerWrapper(_Vocabulary(tokenizer, vocabulary, end_ids))
    return llguidance.LLTokenizer(wrapper, eos_token=sorted(end_ids) or [vocabulary])
