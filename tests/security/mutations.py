"""Mutants of a module: its syntax tree with one small change, for tests that have to notice it.

The operators are those of mutation testing at large (DeMillo, Lipton and Sayward, "Hints on Test
Data Selection", 1978), with some for what decisions are made of here: sets, `all` and `any`,
patterns, methods of texts.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

Step = tuple[str, int | None]  # a field of a node, and the place in it if it is a list

_LONGEST = 70  # characters of a piece of code in a mutant's name

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitAnd,
}
_FUNCTIONS = {"all": "any", "any": "all", "min": "max", "max": "min"}
_METHODS = {
    "startswith": "endswith",
    "endswith": "startswith",
    "partition": "rpartition",
    "rpartition": "partition",
    "find": "rfind",
    "fullmatch": "match",
    "search": "fullmatch",
    "add": "discard",
    "bisect_left": "bisect_right",
}
_DROPPED = {"strip", "rstrip", "lstrip", "casefold", "lower", "removeprefix", "translate"}
_PATTERNS = ("", "(?!)", r"(?s:.*)")  # matches nothing but the empty text, nothing at all, all


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to a module."""

    name: str  # stays the same while the function that it is in does not change
    path: tuple[Step, ...]  # from the module to what is replaced
    new: ast.AST | None  # None: it is removed


def mutants_of(source: str, module: str) -> list[Mutant]:
    """All mutants of a module, each with a name of its own."""
    count: Counter[str] = Counter()
    found = []
    for path, old, new, kind, where in _changes(ast.parse(source), (), module):
        if new is not None and ast.dump(new) == ast.dump(old):
            continue
        name = f"{where}: {kind}"
        if not kind.startswith("returns"):
            name += f" {_code(old)} -> {_code(new)}"
        count[name] += 1
        numbered = f"{name} #{count[name]}" if count[name] > 1 else name
        found.append(Mutant(numbered, path, new))
    return found


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """A module with one change."""
    tree = ast.parse(source)
    node: ast.AST = tree
    for field, place in mutant.path[:-1]:
        node = getattr(node, field) if place is None else getattr(node, field)[place]
    field, place = mutant.path[-1]
    new = deepcopy(mutant.new)
    if place is None:
        setattr(node, field, new)
    elif new is None:
        del getattr(node, field)[place]
    else:
        getattr(node, field)[place] = new
    return ast.fix_missing_locations(tree)


def _code(node: ast.AST | None) -> str:
    text = " ".join(ast.unparse(node).split()) if node is not None else "nothing"
    return f"`{text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}`"


_Change = tuple[tuple[Step, ...], ast.AST, ast.AST | None, str, str]


def _changes(node: ast.AST, path: tuple[Step, ...], where: str) -> Iterator[_Change]:
    """Every change below a node, in order."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params", "ctx", "op", "ops"):
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for place, child in children:
            if not isinstance(child, ast.AST) or _is_left(child, node, field, place):
                continue
            here = (*path, (field, place))
            inner = where
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{where}.{child.name}"
            for kind, new in _replacements(child, node, field):
                yield here, child, new, kind, inner
            if _may_go(child, node, field, value):
                yield here, child, None, "removed", inner
            yield from _changes(child, here, inner)
            if isinstance(child, ast.FunctionDef) and child.returns is not None:
                yield from _returned(child, here, inner)


def _is_left(child: ast.AST, parent: ast.AST, field: str, place: int | None) -> bool:
    """Whether nothing is changed in a node: imports, docstrings, names of types."""
    if isinstance(child, ast.Import | ast.ImportFrom):
        return True
    if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
        return True
    return (
        isinstance(parent, ast.Module)
        and isinstance(child, ast.Assign)
        and all(
            isinstance(
                node,
                ast.BinOp
                | ast.BitOr
                | ast.Name
                | ast.Load
                | ast.Subscript
                | ast.Tuple
                | ast.Constant,
            )
            and (not isinstance(node, ast.Constant) or node.value is None)
            for node in ast.walk(child.value)
        )
    )


def _replacements(node: ast.AST, parent: ast.AST, field: str) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                for other in _COMPARISONS[type(op)]:
                    changed = deepcopy(node)
                    changed.ops[place] = other()
                    yield "comparison", changed
        case ast.BoolOp(op=op, values=values):
            changed = deepcopy(node)
            changed.op = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield "operator", changed
            for place in range(len(values)):
                rest = [value for at, value in enumerate(values) if at != place]
                yield "dropped", rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "negation", operand
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield "sign", operand
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            yield "operator", ast.BinOp(left, _OPERATORS[type(op)](), right)
            if isinstance(op, ast.BitOr | ast.BitAnd | ast.Sub | ast.Add):
                yield "dropped", left
                yield "dropped", right
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in _OPERATORS:
            yield "operator", ast.AugAssign(target, _OPERATORS[type(op)](), value)
        case ast.IfExp(body=body, orelse=orelse):
            yield "branch", body
            yield "branch", orelse
        case ast.Constant() if not isinstance(parent, ast.JoinedStr | ast.FormattedValue):
            yield from (("constant", ast.Constant(new)) for new in _constants(node.value))
        case ast.Call():
            yield from _calls(node)
        case ast.Continue():
            yield "jump", ast.Break()
        case ast.Break():
            yield "jump", ast.Continue()
    if field == "test" and isinstance(parent, ast.If | ast.While):
        yield "condition", ast.Constant(False)
        if not isinstance(parent, ast.While):
            yield "condition", ast.Constant(True)
    if (field == "test" or field == "ifs") and not isinstance(node, ast.Compare | ast.UnaryOp):
        yield "negation", ast.UnaryOp(ast.Not(), node)
    if isinstance(node, ast.stmt) and _may_be_skipped(node):
        yield "skipped", ast.Pass()


def _may_be_skipped(node: ast.stmt) -> bool:
    match node:
        case ast.Expr() | ast.AugAssign() | ast.Continue() | ast.Break() | ast.Delete():
            return True
        case ast.Assign(targets=[target]):
            return not isinstance(target, ast.Name | ast.Tuple)
        case ast.Assign():
            return True
    return False


def _constants(value: object) -> Iterator[object]:
    """What a constant becomes. Sentences for people stay: tests need not know them by heart."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        if value:
            yield value - 1
    elif isinstance(value, float):
        yield value * 2 + 1
    elif isinstance(value, str) and len(value.split()) < 2:
        yield value + "_" if value else "_"


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    match node.func:
        case ast.Name(id=name) if name in _FUNCTIONS:
            yield (
                "function",
                ast.Call(ast.Name(_FUNCTIONS[name], ast.Load()), node.args, node.keywords),
            )
        case ast.Name(id="sorted"):
            yield "dropped", node.args[0]
        case ast.Name(id="bisect_left"):
            yield "function", ast.Call(ast.Name("bisect_right", ast.Load()), node.args, [])
        case ast.Attribute(value=ast.Name(id="re"), attr="compile" | "fullmatch" | "search"):
            if isinstance(node.args[0], ast.Constant):
                for pattern in _PATTERNS:
                    rest = [ast.Constant(pattern), *node.args[1:]]
                    yield "pattern", ast.Call(node.func, rest, node.keywords)
                if node.args[1:] and node.func.attr == "compile":
                    yield "dropped", ast.Call(node.func, node.args[:1], node.keywords)
        case ast.Attribute(value=value, attr=name):
            if name in _METHODS:
                yield (
                    "method",
                    ast.Call(
                        ast.Attribute(value, _METHODS[name], ast.Load()), node.args, node.keywords
                    ),
                )
            if name in _DROPPED:
                yield "dropped", value


def _may_go(child: ast.AST, parent: ast.AST, field: str, siblings: object) -> bool:
    """Whether a node can be taken out of its list: elements, conditions, parts of a text."""
    if isinstance(parent, ast.Tuple | ast.List | ast.Set):
        return isinstance(getattr(parent, "ctx", ast.Load()), ast.Load)
    if isinstance(parent, ast.JoinedStr):
        return isinstance(child, ast.FormattedValue) or not _is_prose(parent)
    return (isinstance(parent, ast.comprehension) and field == "ifs") or isinstance(
        child, ast.keyword
    )


def _is_prose(text: ast.JoinedStr) -> bool:
    """Whether a text is a sentence for people: tests need not know its words by heart."""
    parts = [str(part.value) for part in text.values if isinstance(part, ast.Constant)]
    return any(part.split() and " " in part for part in parts)


def _returned(function: ast.FunctionDef, path: tuple[Step, ...], where: str) -> Iterator[_Change]:
    """Functions that always return the same."""
    assert function.returns is not None
    kind = ast.unparse(function.returns)
    values: list[str] = {"bool": ["True", "False"], "str": ["''"]}.get(kind, [])
    if kind.startswith("list["):
        values = ["[]"]
    elif kind.startswith("tuple["):
        values = ["()"]
    elif kind.startswith("frozenset["):
        values = ["frozenset()"]
    elif kind.startswith("Iterator["):
        values = ["iter(())"]
    elif kind.endswith("| None"):
        values = ["None"]
    for value in values:
        new = deepcopy(function)
        new.body = [ast.parse(f"return {value}").body[0]]
        yield path, function, new, f"returns {value}", where
