"""How models are told of tools, how calls are read, and the grammar that makes them whole."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.engine.constraint import ConstraintCompiler
from oneiros.engine.requests import ConstraintSpec
from oneiros.errors import ConstraintError
from oneiros.model.chat_format import ChatFormat, load_chat_format
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import Tokenizer, load_tokenizer
from oneiros.model.tool_call_parser import (
    CallArguments,
    CallStart,
    Piece,
    Reasoning,
    Text,
    ToolCallParser,
)
from oneiros.model.tool_calls import MOST_CALLS, ToolCallFormat, tool_call_format
from tests.engine.random_replies import allowed, draw
from tests.engine.tool_schemas import UNSUPPORTED, servers, validate

TEMPLATES = Path(__file__).parent.parent / "data" / "tokenizer"

HERMES = ToolCallFormat("hermes")
THINKING = ToolCallFormat("hermes", reasoning="marked")
LLAMA = ToolCallFormat("llama3")
MISTRAL = ToolCallFormat("mistral")
MISTRAL_NAMED = ToolCallFormat("mistral", named=True)
FORMATS = [
    HERMES,
    THINKING,
    ToolCallFormat("hermes", reasoning="open"),
    LLAMA,
    MISTRAL,
    MISTRAL_NAMED,
]

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a place.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 6},
                    "unit": {"$ref": "#/$defs/unit"},
                },
                "required": ["city"],
                "$defs": {"unit": {"enum": ["celsius", "kelvin"]}},
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {"terms": {"type": "array", "items": {"type": "integer"}}},
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]


@pytest.fixture(scope="module")
def tokenizer(default_model_path: Path) -> Tokenizer:
    return load_tokenizer(open_parameters(default_model_path))


@pytest.fixture(scope="module")
def chat_format(default_model_path: Path, tokenizer: Tokenizer) -> ChatFormat:
    chat_format = load_chat_format(open_parameters(default_model_path), tokenizer)
    assert chat_format is not None
    return chat_format


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> ConstraintCompiler:
    return ConstraintCompiler(tokenizer, tokenizer.vocabulary_size, tokenizer.end_ids)


def read(
    parts: Iterable[str],
    style: ToolCallFormat = HERMES,
    tools: list[dict[str, Any]] | None = None,
    constrained: bool = False,
) -> list[Piece]:
    """What a parser gives out, neighbouring pieces of one kind put together."""
    numbers = itertools.count()
    parser = style.parser(tools, constrained=constrained, new_id=lambda: f"call{next(numbers)}")
    pieces = [piece for part in parts for piece in parser.push(part)] + parser.finish()
    together: list[Piece] = []
    for piece in pieces:
        match together[-1] if together else None, piece:
            case Text(before), Text(more):
                together[-1] = Text(before + more)
            case Reasoning(before), Reasoning(more):
                together[-1] = Reasoning(before + more)
            case CallArguments(index, before), CallArguments(_, more):
                together[-1] = CallArguments(index, before + more)
            case _:
                together.append(piece)
    return together


def same(piece: Piece) -> object:
    """A piece with its arguments as values: a call that came whole has them written anew."""
    return json.loads(piece.piece) if isinstance(piece, CallArguments) else piece


def call(index: int, name: str, arguments: str) -> list[Piece]:
    return [CallStart(index, f"call{index}", name), CallArguments(index, arguments)]


A = '{"name": "a", "arguments": {"x": 1}}'
ONE = f"<tool_call>\n{A}\n</tool_call>"

WELL_FORMED: list[tuple[ToolCallFormat, str, list[Piece]]] = [
    (HERMES, "Hello, world", [Text("Hello, world")]),
    (HERMES, ONE, call(0, "a", '{"x": 1}')),
    (HERMES, f"Let me see.\n\n{ONE}\n", [Text("Let me see."), *call(0, "a", '{"x": 1}')]),
    (HERMES, f"{ONE}\n{ONE}", [*call(0, "a", '{"x": 1}'), *call(1, "a", '{"x": 1}')]),
    (HERMES, f"{ONE} and more", [*call(0, "a", '{"x": 1}'), Text(" and more")]),
    (
        HERMES,
        '<tool_call>{"name": "a", "arguments": {"s": "</tool_call>\\"}{"}}</tool_call>',
        call(0, "a", '{"s": "</tool_call>\\"}{"}'),
    ),
    (
        THINKING,
        f"<think>\nA <tool_call>?\n</think>\n\n{ONE}",
        [Reasoning("A <tool_call>?"), *call(0, "a", '{"x": 1}')],
    ),
    (THINKING, "<think></think>Yes", [Text("Yes")]),
    (THINKING, "No thought", [Text("No thought")]),
    (THINKING, "<think>never ends", [Reasoning("never ends")]),
    (
        ToolCallFormat("hermes", reasoning="open"),
        "Hm.\n</think>\n\nYes <think>",
        [Reasoning("Hm."), Text("Yes <think>")],
    ),
    (LLAMA, '{"name": "a", "parameters": {"x": 1}}', call(0, "a", '{"x": 1}')),
    (LLAMA, f"<|python_tag|>{A}", call(0, "a", '{"x": 1}')),
    (LLAMA, f"{A}; {A}", [*call(0, "a", '{"x": 1}'), *call(1, "a", '{"x": 1}')]),
    (LLAMA, 'It is {"name": 3}.', [Text('It is {"name": 3}.')]),
    (
        MISTRAL,
        f"[TOOL_CALLS] [{A}, {A}]",
        [*call(0, "a", '{"x": 1}'), *call(1, "a", '{"x": 1}')],
    ),
    (MISTRAL, f"So: [TOOL_CALLS][{A}]", [Text("So:"), *call(0, "a", '{"x": 1}')]),
    (
        MISTRAL_NAMED,
        '[TOOL_CALLS]a[ARGS]{"x": 1}[TOOL_CALLS]b-2[CALL_ID]q1[ARGS]{}',
        [*call(0, "a", '{"x": 1}'), *call(1, "b-2", "{}")],
    ),
]


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize(("style", "text", "pieces"), WELL_FORMED)
def test_a_reply_is_read_whole_or_in_pieces(
    style: ToolCallFormat, text: str, pieces: list[Piece], constrained: bool
) -> None:
    assert read([text], style, constrained=constrained) == pieces
    assert read(text, style, constrained=constrained) == pieces  # one character at a time


MALFORMED = [
    (HERMES, "<tool_call>\nnothing\n</tool_call>"),
    (HERMES, "a <tool_call>\n{}\n</tool_call> b"),
    (HERMES, '<tool_call>{"name": "a"}</tool_call>'),
    (HERMES, '<tool_call>{"name": 3, "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "a", "arguments": [1]}</tool_call>'),
    (HERMES, '<tool_call>{"name": "a", "arguments": {"x": 1}]</tool_call>'),
    (HERMES, '<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "a", "arguments": {"x": "\\ud800"}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "a", "arguments": {"x": 1e999}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "a", "arguments": {"x": "\n"}}</tool_call>'),
    (HERMES, f"<tool_call>{A} and no end"),
    (HERMES, "<tool_call>" + '{"a":' * 3_000 + "1" + "}" * 3_000 + "</tool_call>"),
    (HERMES, '<tool_call>{"name": "a", "arguments": {"x": 1'),
    (HERMES, "<tool_call>"),
    (HERMES, "text <tool_ca"),
    (LLAMA, '{"answer": 42}'),
    (LLAMA, '{"name": "a", "parameters": {"x": '),
    (LLAMA, "<|python_tag|>print(1)"),
    (MISTRAL, "[TOOL_CALLS] []"),
    (MISTRAL, "[TOOL_CALLS] [3]"),
    (MISTRAL, "[TOOL_CALLS]a[ARGS] no"),
    (MISTRAL, "[TOOL_CALLS]a[ARGS]{"),
]


@pytest.mark.parametrize(("style", "text"), MALFORMED)
def test_what_is_no_well_formed_call_comes_out_as_text(style: ToolCallFormat, text: str) -> None:
    assert read([text], style) == [Text(text)]


def test_calls_of_tools_that_were_not_offered_are_text() -> None:
    text = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    assert read([text], HERMES, TOOLS) == call(0, "now", "{}")
    assert read([ONE], HERMES, TOOLS) == [Text(ONE)]
    assert read([text], HERMES, []) == [Text(text)]


def test_a_malformed_call_hides_no_good_one() -> None:
    assert read([f"<tool_call> {ONE}"]) == [Text("<tool_call>"), *call(0, "a", '{"x": 1}')]
    parsed = read([f'[TOOL_CALLS] [{A}, {{"name": 1}}]'], MISTRAL)
    assert parsed == [*call(0, "a", '{"x": 1}'), Text(', {"name": 1}]')]


def test_order_of_keys_and_arguments_as_text_are_understood() -> None:
    text = '<tool_call>{"arguments": "{\\"x\\": 1}", "name": "a"}</tool_call>'
    assert read([text]) == call(0, "a", '{"x": 1}')


def test_arguments_come_while_they_are_generated_where_the_grammar_holds() -> None:
    parser = HERMES.parser(TOOLS, constrained=True, new_id=lambda: "i")
    assert parser.push('<tool_call>\n{"name": "get_weather", "argu') == []
    start = parser.push('ments": {"city": "Pa')
    assert start == [CallStart(0, "i", "get_weather"), CallArguments(0, '{"city": "Pa')]
    assert parser.push('ris"}') == [CallArguments(0, 'ris"}')]
    assert parser.push("}\n</tool_call>") == []
    assert parser.finish() == []


def test_a_call_that_a_limit_cut_says_what_came_and_no_more() -> None:
    text = '<tool_call>\n{"name": "add", "arguments": {"terms": [1, 2'
    start, arguments = read([text], HERMES, TOOLS, constrained=True)
    assert start == CallStart(0, "call0", "add")
    assert arguments == CallArguments(0, '{"terms": [1, 2')


SNIPPETS = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]", "[ARGS]"),
        *("<|python_tag|>", A, ONE, f"[{A}, {A}]", "{", "}", "[", "]", '"', "\\", ";", ",", ":"),
        *("\n", " ", "a", '{"name": "a", ', '"arguments": {', '"parameters": ', "é", "<tool", "😀"),
    ]
)


@given(
    st.lists(SNIPPETS | st.text(max_size=3), max_size=12).map("".join),
    st.data(),
    st.sampled_from(FORMATS),
)
def test_how_a_text_was_split_changes_nothing(
    text: str, data: st.DataObject, style: ToolCallFormat
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
    ends = [0, *cuts, len(text)]
    parts = [text[first:last] for first, last in itertools.pairwise(ends)]
    assert read(parts, style) == read([text], style)


@given(st.lists(SNIPPETS | st.text(max_size=3), max_size=12).map("".join))
def test_nothing_is_lost_but_white_space_and_marks(text: str) -> None:
    pieces = read([text])
    if not any(isinstance(piece, CallStart) for piece in pieces):
        assert "".join(p.text for p in pieces if isinstance(p, Text)) == text


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("choice", ["auto", "required", "add"])
@pytest.mark.parametrize("parallel", [True, False])
def test_whatever_is_drawn_from_the_grammar_has_no_malformed_call(
    style: ToolCallFormat,
    choice: str,
    parallel: bool,
    compiler: ConstraintCompiler,
    tokenizer: Tokenizer,
) -> None:
    grammar = ConstraintSpec("lark", style.grammar(TOOLS, choice, parallel))
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") for tool in TOOLS}
    whole = 0
    for seed in range(6):
        text = draw(compiler, tokenizer, grammar, seed, 250)
        if text is None:
            continue
        pieces = read([text], style, TOOLS)
        early = read(text, style, TOOLS, constrained=True)
        assert [*map(same, early)] == [*map(same, pieces)]
        starts = [piece for piece in pieces if isinstance(piece, CallStart)]
        given_ = [piece for piece in pieces if isinstance(piece, CallArguments)]
        for start, arguments in zip(starts, given_, strict=True):
            validate(json.loads(arguments.piece), schemas[start.name] or {})
        said = "".join(piece.text for piece in pieces if isinstance(piece, Text))
        assert "tool_call>" not in said
        assert "[TOOL_CALLS]" not in said
        assert len(starts) <= (MOST_CALLS if parallel and choice != "add" else 1)
        if choice != "auto":
            assert starts
            assert not said
        if choice == "add":
            assert [start.name for start in starts] == ["add"]
        whole += 1
    assert whole or style.reasoning == "open"


@pytest.mark.parametrize("style", [style for style in FORMATS if style.reasoning == "none"])
@pytest.mark.parametrize("choice", ["required", "get_weather"])
def test_a_required_call_has_no_room_for_anything_but_its_arguments(
    style: ToolCallFormat, choice: str, compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    city = {"type": "string", "maxLength": 30}
    parameters = {"type": "object", "properties": {"city": city}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    before, after = {
        "hermes": ('<tool_call>\n{"name": "get_weather", "arguments": ', "}\n</tool_call>"),
        "llama3": ('{"name": "get_weather", "parameters": ', "}"),
        "mistral": ('[TOOL_CALLS][{"name": "get_weather", "arguments": ', "}]"),
    }[style.name]
    if style.named:
        before, after = "[TOOL_CALLS]get_weather[ARGS]", ""
    grammar = style.grammar([tool], choice, parallel=False)
    constraint = compiler.compile(ConstraintSpec("lark", grammar))

    def follow(text: str) -> None:
        """Go on by a text, which must be all that can follow, or its beginning."""
        forced = constraint.forced()
        constraint.consume(forced)
        certain = tokenizer.decode(forced)
        assert text.startswith(certain)
        for at in range(len(certain), len(text)):
            rest = text[at:].encode()
            ways = [tokenizer.token_bytes(int(token)) for token in allowed(constraint)]
            assert ways and all(way.startswith(rest[: len(way)]) for way in ways)
            constraint.consume(tokenizer.encode_parts([text[at]], opens=False))

    follow(before + '{"city": "')
    for _ in range(30):  # of all characters these take the most tokens
        constraint.consume(tokenizer.encode_parts(["\\u0001"], opens=False))
    follow('"}' + after)
    assert constraint.stopped


def test_a_call_begun_in_free_text_can_only_be_finished(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    for style, begun in (
        (HERMES, "Let me look. <tool_call>"),
        (MISTRAL, "Let me look. [TOOL_CALLS]"),
        (LLAMA, '{"'),
        (THINKING, "<think>\nWhat is <tool_call>?\n</think>\n\n<tool_call>"),
    ):
        constraint = compiler.compile(ConstraintSpec("lark", style.grammar(TOOLS)))
        for piece in (begun[:3], begun[3:10], begun[10:]):
            constraint.consume(tokenizer.encode_parts([piece], opens=False))
        assert not constraint.accepting
        assert '{"name":' in begun + tokenizer.decode(constraint.forced())


def test_grammars_of_real_servers_compile(compiler: ConstraintCompiler) -> None:
    for tools in servers().values():
        supported = [tool for tool in tools if tool["function"]["name"] != UNSUPPORTED]
        for style in (HERMES, LLAMA, MISTRAL):
            compiler.compile(ConstraintSpec("lark", style.grammar(supported)))


@pytest.mark.parametrize(
    ("tools", "choice", "message"),
    [
        ([], "auto", "at least one"),
        ([TOOLS[2], TOOLS[2]], "auto", "names must differ"),
        (TOOLS, "subtract", "there is no tool 'subtract'"),
        ([{"type": "function"}], "auto", "A tool is"),
        ([{"function": {"name": "f", "parameters": {"type": "array"}}}], "auto", "f: parameters"),
        (
            [{"function": {"name": "f", "parameters": {"properties": {"x": {"not": {}}}}}}],
            "required",
            r"^f: parameters\.properties\.x\.not: not supported",
        ),
    ],
)
def test_tools_that_cannot_be_called_are_refused(
    tools: list[dict[str, Any]], choice: str, message: str
) -> None:
    with pytest.raises(ConstraintError, match=message):
        HERMES.grammar(tools, choice)


def test_a_template_that_ignores_tools_has_them_described(
    chat_format: ChatFormat, tokenizer: Tokenizer
) -> None:
    style = tool_call_format(chat_format.template)
    assert style == ToolCallFormat("hermes", described=True)
    plain = chat_format.render([{"role": "user", "content": "Hi"}])
    assert chat_format.render([{"role": "user", "content": "Hi"}], tools=TOOLS) == plain
    described = style.describe(TOOLS)
    assert described is not None
    for tool in TOOLS:
        assert json.dumps(tool["function"], separators=(",", ":")) in described
    assert "<tool_call>" in described
    rendered = tokenizer.decode(chat_format.render([{"role": "system", "content": described}]))
    assert described in rendered


def test_the_format_is_chosen_from_the_template() -> None:
    qwen = (TEMPLATES / "qwen2.5-chat-template.jinja").read_text()
    assert tool_call_format(qwen) == HERMES
    assert tool_call_format(qwen).describe(TOOLS) is None
    assert tool_call_format("{{ messages }}") == ToolCallFormat("hermes", described=True)
    assert tool_call_format(qwen + "<think></think>").reasoning == "marked"
    opening = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    assert tool_call_format(qwen + "</think>" + opening).reasoning == "open"
    llama = 'Respond in the format {"name": function name, "parameters": dictionary of argument}'
    assert tool_call_format("{{ tools }}" + llama).name == "llama3"
    assert tool_call_format("{{ tools }}[TOOL_CALLS]") == MISTRAL
    assert tool_call_format("{{ tools }}[TOOL_CALLS]{{ name }}[ARGS]") == MISTRAL_NAMED
    xml = "{{ tools }}<tool_call>\n<function=example>"
    assert tool_call_format(xml) == ToolCallFormat("hermes", described=True)


def test_identifiers_of_calls_are_those_that_templates_accept() -> None:
    parser = ToolCallParser("hermes")
    (start, *_), (other, *_) = parser.push(ONE), parser.push(ONE)
    assert isinstance(start, CallStart)
    assert isinstance(other, CallStart)
    assert start.id.isalnum()
    assert len(start.id) == 9
    assert start.id != other.id
