"""Chat templates: Jinja in a sandbox, with the template's own control tokens told apart.

A chat template is a program that prints a conversation as text with control tokens in it. Were
that text searched for control tokens, a message that says "<|im_end|>" would end its own turn. So
the search is made in the template's source: every text of an added token, in a string that the
template may print, is replaced by a placeholder with an unguessable number. Messages go through
the template untouched, and whatever it does to them, the placeholders that come out are its own.

Strings that a template compares with or searches for (`'</think>' in content`) stay as they are.
Where telling the two apart fails, the text differs from what the plain template prints, and that
is an error.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Set
from typing import NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.environment import Environment
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.optimizer import optimize
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from oneiros.model.chat_format import ChatFormatError

# Filters whose arguments may be printed.
_PRINTING_FILTERS = {"default", "d", "join"}

# What an expression in a template can raise.
_FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class ChatTemplate:
    """A compiled chat template.

    The environment is that of `transformers`: sandboxed, with blocks trimmed, a `tojson` without
    escapes, `raise_exception`, break and continue, and generation blocks.
    """

    def __init__(self, source: str, added_tokens: Mapping[str, int]) -> None:
        """Compile a template for a tokenizer with these added tokens: text -> id.

        Raises:
            ChatFormatError: it is not Jinja, or uses a tag or filter that is not known.
        """
        self._ids = added_tokens
        self._texts = {token_id: text for text, token_id in added_tokens.items()}
        self._secret = secrets.token_hex(16)
        self._placeholder = re.compile(f"{self._secret}x([0-9]+)y")
        longest_first = sorted(added_tokens, key=len, reverse=True)
        self._token = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        environment = _environment()
        try:
            self._plain = _compile(environment, environment.parse(source))
            tree = optimize(environment.parse(source), environment)
            self._mark(tree, printed=True)
            self._marked = _compile(environment, tree)
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            place = "" if line is None else f", line {line}"
            raise ChatFormatError(f"The chat template{place}: {error}.") from error
        except (MemoryError, RecursionError, SyntaxError) as error:
            raise ChatFormatError(f"The chat template cannot be compiled: {error}.") from error

    def render(self, variables: Mapping[str, object], special: Mapping[str, int | None]) -> str:
        """The conversation as text, with the template's own added tokens as placeholders.

        Args:
            variables: what the template sees.
            special: tokens that it sees as variables, such as bos_token; None: undefined.

        Raises:
            ChatFormatError: the template refuses the messages, or fails, or works on the text of
                its own control tokens.
        """
        named = {name: i for name, i in special.items() if i is not None}
        marks = {name: self._mark_of(token_id) for name, token_id in named.items()}
        texts = {name: self._texts.get(token_id, "") for name, token_id in named.items()}
        marked = self._run(self._marked, {**variables, **marks})
        if self._unmarked(marked) != self._run(self._plain, {**variables, **texts}):
            raise ChatFormatError(
                "The chat template works on the text of its own control tokens in a way that is "
                "not supported."
            )
        return marked

    def check(self, marked: str) -> None:
        """Check that a rendering of harmless messages has all its control tokens as placeholders.

        Raises:
            ChatFormatError: the template puts the text of a control token together from pieces.
        """
        meant = self._token.findall(self._unmarked(marked))
        found = [self._texts[int(number)] for number in self._placeholder.findall(marked)]
        if meant != found:
            missing = next((text for text in meant if text not in found), meant[0])
            raise ChatFormatError(
                f"The chat template puts the control token {missing!r} together from pieces, "
                "which is not supported."
            )

    def parts(self, marked: str) -> list[str | int]:
        """A rendering as texts and ids of added tokens in turn; no text is empty."""
        pieces: list[str | int] = [*self._placeholder.split(marked)]
        pieces[1::2] = [int(number) for number in pieces[1::2]]
        return [piece for piece in pieces if piece != ""]

    def end_of(self, marked: str, ids: Set[int]) -> int | None:
        """Where the first placeholder of one of these tokens ends in a rendering, or None."""
        for match in self._placeholder.finditer(marked):
            if int(match[1]) in ids:
                return match.end()
        return None

    def _run(self, template: Template, variables: Mapping[str, object]) -> str:
        try:
            return template.render(variables)
        except _FAILURES as error:
            why = self._unmarked(str(error)) or type(error).__name__
            raise ChatFormatError(f"The chat template fails on these messages: {why}") from error

    def _mark_of(self, token_id: int) -> str:
        known = token_id in self._texts
        return f"{self._secret}x{token_id}y" if known else ""

    def _unmarked(self, text: str) -> str:
        return self._placeholder.sub(lambda match: self._texts[int(match[1])], text)

    def _marked_text(self, text: str) -> str:
        return self._token.sub(lambda match: self._mark_of(self._ids[match[0]]), text)

    def _mark(self, node: nodes.Node, printed: bool) -> None:
        """Put placeholders into the strings under a node; `printed`: its value may be printed."""
        if isinstance(node, nodes.TemplateData):
            node.data = self._marked_text(node.data)
        elif isinstance(node, nodes.Const) and isinstance(node.value, str) and printed:
            node.value = self._marked_text(node.value)
        unprinted = _unprinted(node)
        for name, value in node.iter_fields():
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, nodes.Node):
                    self._mark(child, printed and name not in unprinted)


def _unprinted(node: nodes.Node) -> set[str]:
    """The fields of a node whose strings are compared or searched for, and never printed."""
    match node:
        case nodes.Compare() | nodes.Test() | nodes.Not() | nodes.Slice():
            return set(node.fields)
        case nodes.If() | nodes.For() | nodes.CondExpr():
            return {"test"}
        case nodes.Getitem():
            return {"arg"}
        case nodes.Pair():
            return {"key"}
        case nodes.Filter() if node.name not in _PRINTING_FILTERS:
            return {"args", "kwargs"}
        case nodes.Call() if isinstance(node.node, nodes.Getattr):
            # A method of a string; what a macro is called with may be printed by it.
            return {"args", "kwargs"}
    return set()


def _compile(environment: Environment, tree: nodes.Node) -> Template:
    assert isinstance(tree, nodes.Template)
    code = environment.compile(tree)
    return Template.from_code(environment, code, environment.make_globals(None))


def _environment() -> Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    # Jinja's own hand out a class, and objects that take any attribute: ways out of the sandbox.
    environment.globals["dict"] = _new_dict
    environment.globals["namespace"] = _Variables
    return environment


class _Generation(Extension):
    """`{% generation %}` marks what the assistant says, for training; here it prints its body."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Variables(Namespace):
    """Jinja's `namespace()`, without names that reach into Python."""

    def __init__(*args: object, **values: object) -> None:
        _refuse_private(dict(*args[1:], **values))
        Namespace.__init__(*args, **values)

    def __setitem__(self, name: str, value: object) -> None:
        _refuse_private({name: value})
        super().__setitem__(name, value)


def _refuse_private(values: Mapping[str, object]) -> None:
    for name in values:
        if name.startswith("_"):
            raise SecurityError(f"the name {name!r} is not allowed in a namespace")


def _new_dict(*args: object, **values: object) -> dict[str, object]:
    return dict(*args, **values)


def _raise_exception(message: object) -> NoReturn:
    raise TemplateError(str(message))


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
