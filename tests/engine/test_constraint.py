"""Constraints on replies: what they allow, force and refuse, for vocabularies of every kind."""

from __future__ import annotations

import json
import lzma
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import llguidance
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneiros.engine import constraint as constraint_module
from oneiros.engine.constraint import Constraint, ConstraintCompiler, apply_mask
from oneiros.engine.language_model import LanguageModel
from oneiros.engine.requests import ConstraintSpec
from oneiros.errors import ConstraintError
from oneiros.model.json_schema_keywords import KNOWN, REFUSED
from oneiros.model.tokenizer import Tokenizer, tokenizer_from_sentencepiece
from oneiros.model.vocabulary import TokenKind, Vocabulary
from tests.engine.random_replies import allowed, draw

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
}


@pytest.fixture(scope="module")
def tokenizer(model: LanguageModel) -> Tokenizer:
    return model.tokenizer


@pytest.fixture(scope="module")
def compiler(model: LanguageModel) -> ConstraintCompiler:
    return ConstraintCompiler(model.tokenizer, model.engine.vocabulary, model.tokenizer.end_ids)


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    packed = Path(__file__).parent.parent / "data" / "tokenizer" / "mistral-7b-v0.1.model.xz"
    path = tmp_path_factory.mktemp("mistral") / "tokenizer.model"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return tokenizer_from_sentencepiece(path)


def say(constraint: Constraint, tokenizer: Tokenizer, text: str) -> None:
    constraint.consume(tokenizer.encode_parts([text], opens=False))


def follows(constraint: Constraint, tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text may come next."""
    try:
        say(constraint.copy(), tokenizer, text)
    except ConstraintError:
        return False
    return True


def lark(text: str) -> ConstraintSpec:
    return ConstraintSpec("lark", text)


def byte_tokenizer(added: dict[str, TokenKind], end: str | None = None) -> Tokenizer:
    """A byte-level tokenizer of single bytes and added tokens."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    pieces = [*map(chr, printable), *(chr(0x100 + i) for i in range(len(others))), *added]
    kinds = [TokenKind.NORMAL] * 256 + list(added.values())
    ends = frozenset({pieces.index(end)} if end else ())
    vocabulary = Vocabulary(pieces, kinds, [], True, None, end_ids=ends)
    return Tokenizer(vocabulary, len(pieces) + 5)


def test_a_schema_forces_what_has_no_alternative(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    constraint = compiler.compile(ConstraintSpec("json_schema", json.dumps(WEATHER)))
    forced = constraint.forced()
    assert tokenizer.decode(forced) == '{"city":'
    constraint.consume(forced)
    assert constraint.forced() == []
    say(constraint, tokenizer, ' "Paris", "unit": "c')
    assert tokenizer.decode(constraint.forced()) == 'elsius"}'


def test_a_complete_reply_allows_only_its_end(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    constraint = compiler.compile(ConstraintSpec("json_schema", json.dumps(WEATHER)))
    say(constraint, tokenizer, '{"city": "Paris", "unit": "celsius"')
    assert not constraint.stopped
    assert not constraint.accepting
    say(constraint, tokenizer, "}")
    assert constraint.stopped
    assert constraint.accepting
    assert set(allowed(constraint)) == tokenizer.end_ids
    assert constraint.forced() == []


def test_ends_are_allowed_where_the_reply_could_end_and_only_there(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    constraint = compiler.compile(ConstraintSpec("regex", "a(bc)*"))
    assert not tokenizer.end_ids & set(allowed(constraint))
    say(constraint, tokenizer, "a")
    assert constraint.accepting
    assert not constraint.stopped
    assert tokenizer.end_ids <= set(allowed(constraint))
    say(constraint, tokenizer, "b")
    assert not tokenizer.end_ids & set(allowed(constraint))


def test_control_tokens_are_never_part_of_text(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    for spec in (ConstraintSpec("regex", "(?s:.*)"), ConstraintSpec("json_schema", "{}")):
        constraint = compiler.compile(spec)
        tokens = set(allowed(constraint))
        assert not tokens & (set(tokenizer.added_tokens.values()) - tokenizer.end_ids)
        assert len(tokens) > 3
    named = compiler.compile(lark("start: <|im_start|> /[a-z]+/"))
    assert list(allowed(named)) == [tokenizer.added_tokens["<|im_start|>"]]


@pytest.mark.parametrize(
    ("expression", "matches", "others"),
    [
        (r"^[a-c]{2}$", ["ab", "cc"], ["a", "abc", "xab"]),
        (r"\d+/\d", ["1/2", "10/3"], ["1/", "/2"]),
        (r"(?i)yes|no", ["YES", "no"], ["ye", "yesno"]),
        ("caf\u00e9\n\"'", ["caf\u00e9\n\"'"], ["cafe"]),
        (r"a{3}", ["aaa"], ["aa", "aaaa"]),
    ],
)
def test_a_regular_expression_is_matched_by_the_whole_reply(
    expression: str,
    matches: list[str],
    others: list[str],
    compiler: ConstraintCompiler,
    tokenizer: Tokenizer,
) -> None:
    for text in (*matches, *others):
        constraint = compiler.compile(ConstraintSpec("regex", expression))
        fits = follows(constraint, tokenizer, text)
        if fits:
            say(constraint, tokenizer, text)
        assert (fits and constraint.accepting) == (text in matches)


@given(st.lists(st.text('ab \n"\\/é日😀<>|', min_size=1, max_size=8), min_size=1, max_size=5))
def test_a_choice_is_one_of_its_texts(
    compiler: ConstraintCompiler, tokenizer: Tokenizer, texts: list[str]
) -> None:
    spec = ConstraintSpec("choice", json.dumps(texts))
    for text in texts:
        constraint = compiler.compile(spec)
        say(constraint, tokenizer, text)
        assert constraint.accepting
    assert {draw(compiler, tokenizer, spec, seed) for seed in range(8)} <= set(texts)


def test_a_grammar_may_recurse_and_embed_schemas(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    spec = lark('start: "(" start ")" | %json {"type": "integer", "minimum": 7, "maximum": 7}')
    constraint = compiler.compile(spec)
    say(constraint, tokenizer, "(((7)))")
    assert constraint.stopped
    assert not follows(compiler.compile(spec), tokenizer, "((8")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ConstraintSpec("regex", "(a"), "unclosed group"),
        (ConstraintSpec("regex", "(?=a)b"), "look-around"),
        (ConstraintSpec("regex", r"(a)\1"), "backreferences"),
        (ConstraintSpec("choice", "[]"), "list of at least one text"),
        (ConstraintSpec("choice", '{"a": 1}'), "list of at least one text"),
        (ConstraintSpec("choice", "[1]"), "list of at least one text"),
        (ConstraintSpec("choice", "[a]"), "not JSON: .*line 1 column 2"),
        (ConstraintSpec("choice", "1" * 5_000), "not JSON: .*4300 digits"),
        (ConstraintSpec("choice", '["yes", "\\ud800"]'), "choice 1 holds half of a surrogate pair"),
        (ConstraintSpec("choice", '["\ud800"]'), "choice holds half of a surrogate pair.* at 2"),
        (ConstraintSpec("regex", "a\udfff"), "regex holds half of a surrogate pair.* at 1"),
        (ConstraintSpec("json_schema", '"\ud800"'), "json_schema holds half of a surrogate pair"),
        (lark('start: "\ud800"'), "lark holds half of a surrogate pair.* at 8"),
        (lark('start: "a'), r"1\(10\)"),
        (lark("start: b\nb: c\n"), r'2\(4\): unknown name: "c"'),
        (lark("start: <|nothing|>"), "unknown special token"),
        (lark('start: %json {"not": {}}'), "not"),
        (lark("x" * 300_000), "300,000 characters"),
        (lark("start: " + "(" * 50_000 + '"a"' + ")" * 50_000), "deeply nested"),
        (lark("start: start"), "."),
        (lark(""), "."),
    ],
)
def test_what_is_malformed_is_refused_with_its_place(
    spec: ConstraintSpec, message: str, compiler: ConstraintCompiler
) -> None:
    with pytest.raises(ConstraintError) as refused:
        compiler.compile(spec).compute_mask()
    assert re.search(message, str(refused.value))
    assert len(str(refused.value)) < 600


KEYWORDS = st.sampled_from([*sorted(KNOWN | REFUSED), "$schema", "$defs", "$id", "a"])
TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["#", "#/a", "#/anyOf/0", "object", "string", "integer", "date", "a+", "\ud800", "%ff"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400) | TEXTS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(KEYWORDS | TEXTS, inner, max_size=4)
    ),
    max_leaves=12,
)
GRAMMAR = st.lists(
    st.sampled_from(
        [
            "start",
            ":",
            "a",
            "|",
            "(",
            ")",
            "*",
            "{0,3}",
            '"x"',
            "/[a-z]+/",
            "%json",
            "{}",
            "%ignore",
            "~",
            "&",
            "[0-9]",
            "\\",
            '"',
        ]
    )
    | st.sampled_from(["\n", "%regex", "<|im_start|>", "[^", "(?i)"])
    | TEXTS,
    max_size=14,
).map(" ".join)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["json_schema", "regex", "choice", "lark"]),
    st.text(st.characters(), max_size=40)
    | GRAMMAR
    | GRAMMAR.map(lambda text: f"start: {text}")
    | VALUES.map(json.dumps)
    | VALUES.map(lambda value: json.dumps(value, ensure_ascii=False)),
)
def test_every_specification_is_a_constraint_or_a_constraint_error(
    compiler: ConstraintCompiler,
    kind: Literal["json_schema", "regex", "choice", "lark"],
    value: str,
) -> None:
    try:
        compiler.compile(ConstraintSpec(kind, value)).compute_mask()
    except ConstraintError as error:
        str(error).encode()  # it can be sent to who asked


def test_one_constraint_is_compiled_while_another_is_and_equal_ones_once(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = ConstraintCompiler(tokenizer, tokenizer.vocabulary_size, tokenizer.end_ids)
    begun, go_on = threading.Event(), threading.Event()
    slow_ones: list[str] = []
    compiled = constraint_module.compiled

    def slowly(tokens: llguidance.LLTokenizer, grammar: str) -> llguidance.LLMatcher:
        if "slow" in grammar:
            slow_ones.append(grammar)
            begun.set()
            assert go_on.wait(60)
        return compiled(tokens, grammar)

    monkeypatch.setattr(constraint_module, "compiled", slowly)
    slow = ConstraintSpec("choice", '["slow"]')
    with ThreadPoolExecutor(3) as threads:
        replies = [threads.submit(compiler.compile, slow) for _ in range(3)]
        try:
            assert begun.wait(60)
            quick = compiler.compile(ConstraintSpec("choice", '["quick"]'))
        finally:
            go_on.set()
        for reply in replies:
            assert follows(reply.result(), tokenizer, "slow")
    assert follows(quick, tokenizer, "quick")
    assert len(slow_ones) == 1


def test_all_who_wait_for_a_constraint_that_cannot_be_compiled_hear_of_it(
    compiler: ConstraintCompiler,
) -> None:
    wrong = ConstraintSpec("regex", "(" * 50)
    with ThreadPoolExecutor(4) as threads:
        for reply in [threads.submit(compiler.compile, wrong) for _ in range(8)]:
            assert isinstance(reply.exception(), ConstraintError)


def test_a_long_chain_of_rules_ends_no_process(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    rules = "".join(f"r{i}: r{i + 1}\n" for i in range(9_000))
    constraint = compiler.compile(lark(f'start: r0\n{rules}r9000: "a"\n'))
    say(constraint, tokenizer, "a")
    assert constraint.stopped


def test_what_the_vocabulary_cannot_express_is_an_error_and_not_another_text(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    assert not any(tokenizer.token_bytes(i) == b"\xf1" for i in range(tokenizer.vocabulary_size))
    spec = ConstraintSpec("json_schema", json.dumps({"const": "ab\U00050000"}))
    with pytest.raises(ConstraintError, match="vocabulary lacks"):
        draw(compiler, tokenizer, spec, 0)


def test_a_token_that_is_not_allowed_is_an_error(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    constraint = compiler.compile(ConstraintSpec("choice", '["yes"]'))
    with pytest.raises(ConstraintError):
        say(constraint, tokenizer, "no")


def test_tokens_can_be_taken_back(compiler: ConstraintCompiler, tokenizer: Tokenizer) -> None:
    constraint = compiler.compile(ConstraintSpec("json_schema", json.dumps(WEATHER)))
    say(constraint, tokenizer, '{"city": "Par')
    before = list(allowed(constraint))
    more = tokenizer.encode_parts(['is", "unit": "celsius"}'], opens=False)
    constraint.consume(more)
    assert constraint.stopped
    constraint.rollback(len(more))
    assert not constraint.stopped
    assert list(allowed(constraint)) == before
    with pytest.raises(ValueError, match="taken back"):
        constraint.rollback(1_000)


def test_copies_and_replies_of_one_grammar_are_independent(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    spec = ConstraintSpec("choice", '["red", "green"]')
    one, other = compiler.compile(spec), compiler.compile(spec)
    say(one, tokenizer, "red")
    copy = other.copy()
    say(copy, tokenizer, "green")
    assert one.stopped
    assert copy.stopped
    assert not other.stopped
    assert follows(other, tokenizer, "red")


def test_masks_can_be_computed_by_several_threads(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    specs = [ConstraintSpec("regex", f"[a-{letter}]+") for letter in "fghijklm"]
    expected = [list(allowed(compiler.compile(spec))) for spec in specs]
    found: dict[int, list[int]] = {}

    def work(index: int) -> None:
        for _ in range(20):
            found[index] = list(allowed(compiler.compile(specs[index])))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(specs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(len(specs))] == expected


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100, 4096])
def test_masking_leaves_allowed_logits_and_removes_all_others(count: int) -> None:
    numbers = np.random.default_rng(count)
    logits = numbers.normal(size=count).astype(np.float32)
    mask = numbers.integers(0, 2**32, -(-count // 32), dtype=np.uint32)
    mask[::2] = 0xFFFFFFFF
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[:count].astype(bool)
    masked = logits.copy()
    apply_mask(masked, mask)
    assert np.array_equal(masked[bits], logits[bits])
    assert np.all(masked[~bits] == -np.inf)


def test_masking_refuses_what_would_read_or_write_elsewhere() -> None:
    logits, mask = np.zeros(64, np.float32), np.zeros(2, np.uint32)
    for bad in (logits.astype(np.float64), logits[::2], logits.reshape(2, 32)):
        with pytest.raises(ValueError, match="float32"):
            apply_mask(bad, mask)
    for short in (mask[:1], mask.astype(np.int32), np.zeros(4, np.uint32)[::2]):
        with pytest.raises(ValueError, match="mask"):
            apply_mask(logits, short)


def test_a_model_without_an_end_token_stops_when_it_is_complete() -> None:
    tokenizer = byte_tokenizer({})
    compiler = ConstraintCompiler(tokenizer, tokenizer.vocabulary_size, frozenset())
    constraint = compiler.compile(ConstraintSpec("choice", '["yes", "yesterday"]'))
    say(constraint, tokenizer, "yes")
    assert constraint.accepting
    assert not constraint.stopped
    say(constraint, tokenizer, "terday")
    assert constraint.stopped
    assert constraint.mask.size * 32 >= tokenizer.vocabulary_size


def test_tokens_of_tool_calls_match_as_text_and_control_tokens_do_not() -> None:
    added = {
        "<tool_call>": TokenKind.USER_DEFINED,
        "[TOOL_CALLS]": TokenKind.CONTROL,
        "<|end|>": TokenKind.CONTROL,
        "<|user|>": TokenKind.USER_DEFINED,
    }
    tokenizer = byte_tokenizer(added, "<|end|>")
    ids = tokenizer.added_tokens
    compiler = ConstraintCompiler(tokenizer, tokenizer.vocabulary_size, tokenizer.end_ids)
    for mark in ("<tool_call>", "[TOOL_CALLS]"):
        constraint = compiler.compile(lark(f"start: {json.dumps(mark)} /[a-z]/"))
        assert constraint.forced() == [ids[mark]]
        assert follows(constraint, tokenizer, mark)  # spelled out it is the same text
    free = set(allowed(compiler.compile(ConstraintSpec("regex", "(?s:.*)"))))
    assert {ids["<tool_call>"], ids["[TOOL_CALLS]"], ids["<|end|>"]} <= free
    assert ids["<|user|>"] not in free
    assert max(free) < 256 + len(added)  # the padding of the embedding stands for nothing


def test_a_vocabulary_of_pieces_with_spaces(sentencepiece: Tokenizer) -> None:
    compiler = ConstraintCompiler(
        sentencepiece, sentencepiece.vocabulary_size, sentencepiece.end_ids
    )
    spec = ConstraintSpec("json_schema", json.dumps(WEATHER))
    constraint = compiler.compile(spec)
    ids = constraint.forced()
    assert b"".join(map(sentencepiece.token_bytes, ids)) == b'{"city":'
    for seed in range(5):
        text = draw(compiler, sentencepiece, spec, seed)
        assert text is None or json.loads(text)["unit"] in ("celsius", "fahrenheit")
