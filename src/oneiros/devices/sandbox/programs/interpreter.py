"""The interpreter: runs pieces of Python one after the other, confined, and keeps the variables.

It is started as `python -I -B interpreter.py DESCRIPTOR`, where the descriptor is a socket. Over it
come requests, and go replies: a length of four bytes and that much JSON.

    request  {"code": text}
    reply    {"value": text or null, "assigned": text or null, "error": text or null,
              "figures": [names of files]}

What the code prints goes where this program's output goes. Nothing of Oneiros is imported.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import linecache
import os
import re
import reprlib
import socket
import sys
import traceback
import types
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

_LONGEST = 100_000  # characters of a value that are shown
_ROWS = 100  # of a table
_ITEMS = 1_000  # of a list or dictionary
# The space before a statement that begins a line, behind another one.
_FOLLOWING = re.compile(r"(?<=\S);? +(?=(?:with|for|while|def|import|from) )")
# Lines that are left as they are: what follows their bodies may belong to these.
_MAY_REPEAT = re.compile(r"\s|(?:for|while|if|elif|else|def|class|try|except)\b")
_ANOTHER = re.compile(r";|[^,\[({] (?:with|while|def) ")  # statement behind one
_LONGEST_ASSIGNED = 1_000  # characters of what code ends with giving a name to
_CONTAINERS = (list, tuple, dict, set, frozenset)
_SIMPLE = (str, int, float, complex, bool, bytes, type(None))
_TABLES = ("pandas", "numpy", "datetime", "decimal", "fractions")  # whose values are shown as well
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 4, 200, 200
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = _BRIEF.maxset = _BRIEF.maxfrozenset = 30


def main(descriptor: int) -> None:
    """Serve requests until the socket closes."""
    os.set_inheritable(descriptor, False)
    channel = socket.socket(fileno=descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    warnings.filterwarnings("ignore", message=".*non-interactive, and thus cannot be shown.*")
    module = types.ModuleType("__main__")
    module.__dict__["display"] = lambda *values: print(*map(shown, values), sep="\n")
    sys.modules["__main__"] = module
    sys.path.insert(0, "")
    sys.argv = [""]
    count = 0
    while (request := _receive(channel)) is not None:
        count += 1
        reply = run(request["code"], module.__dict__, f"<call {count}>")
        data = json.dumps(reply).encode()
        channel.sendall(len(data).to_bytes(4, "little") + data)


def _receive(channel: socket.socket) -> Any:
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
        piece = channel.recv(1 << 20)
        if not piece:
            return None
        data += piece
    return json.loads(data[4:])


def run(code: str, namespace: dict[str, Any], name: str) -> dict[str, Any]:
    """Run a piece of code; the value of its last expression is shown, as in a notebook.

    Code that ends with `x = ...` has "x = VALUE" as what was assigned: models forget to look.
    """
    value = assigned = error = None
    try:
        code, tree = _parsed(code, name)
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), namespace)
        if isinstance(last, ast.Expr):
            result = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
            if result is not None:
                namespace["_"] = result
                value = shown(result)
        elif (target := _assigned(tree)) is not None:
            assigned = _set(target, namespace.get(target))
    except BaseException as raised:  # noqa: BLE001 - whatever the code raises is its result
        error = explained(raised, name)
    figures, problem = _save_figures(name, kept=".savefig(" in code)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return {"value": value, "assigned": assigned, "error": error or problem, "figures": figures}


def _parsed(code: str, name: str) -> tuple[str, ast.Module]:
    """The code, and its tree. Raises SyntaxError.

    Models that are asked for lines write several statements in one: `with ...: a; with ...: b`.
    Where that is all that is wrong, it is read as they mean it, and they are told. What follows the
    body of a loop or of a condition may belong to it or not, and stays a mistake.
    """
    try:
        return code, ast.parse(code, name)
    except SyntaxError:
        lines = code.splitlines()
        meant = "\n".join(
            line if _MAY_REPEAT.match(line) else _FOLLOWING.sub("\n", line) for line in lines
        )
        with contextlib.suppress(SyntaxError):
            tree = ast.parse(meant, name)
            print(f"[read as {len(meant.splitlines())} lines]", flush=True)
            return meant, tree
        raise


def _set(name: str, value: Any) -> str | None:
    """A name and its value, for a look; None: of no kind that is looked at."""
    try:
        if isinstance(value, _CONTAINERS):  # large ones are cut while they are written
            text = _BRIEF.repr(value)
        elif isinstance(value, _SIMPLE) or type(value).__module__.partition(".")[0] in _TABLES:
            text = shown(value)
        else:
            return None
    except Exception:  # noqa: BLE001 - the code did what it should
        return None
    text = f"{name} = {text}"
    return text if len(text) <= _LONGEST_ASSIGNED else f"{text[:_LONGEST_ASSIGNED]}…"


def _assigned(tree: ast.Module) -> str | None:
    """The name that the last statement gives a value to; None: none, or several."""
    match tree.body[-1:]:
        case [
            ast.Assign(targets=[ast.Name(id=name)])
            | ast.AugAssign(target=ast.Name(id=name))
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr())
        ]:
            return name
    return None


# Values


def shown(value: Any) -> str:
    """A value as text for a model."""
    text = _table(value) or _frame(value) or _plain(value)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text):,} characters)"
    return text


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple | set | frozenset | dict) and len(value) > _ITEMS:
        items = value.items() if isinstance(value, dict) else value
        first = [item for item, _ in zip(items, range(_ITEMS), strict=False)]
        part = type(value)(first) if type(value) in (list, tuple, set, dict) else first
        return f"{part!r}\n… {_ITEMS:,} of {len(value):,} items are shown"
    if type(value) in (list, tuple, dict, set):
        from pprint import pformat

        return pformat(value, width=100, compact=True, sort_dicts=False)
    return repr(value)


def _frame(value: Any) -> str | None:
    """A pandas or polars table or column."""
    if type(value).__module__.partition(".")[0] != "pandas" or not hasattr(value, "to_string"):
        return None
    text = value.to_string(max_rows=_ROWS) if hasattr(value, "shape") else repr(value)
    return f"{text}\n{value.shape[0]:,} rows" if value.shape[0] > _ROWS else text


def _table(value: Any) -> str | None:
    """A list of dictionaries, as a table; None: it is something else."""
    if not isinstance(value, list) or len(value) < 2:
        return None
    if not all(isinstance(row, dict) and row for row in value):
        return None
    columns = list(dict.fromkeys(key for row in value[:_ROWS] for key in row))
    if len(columns) > 20:
        return None
    cells = [[_cell(row, column) for column in columns] for row in value[:_ROWS]]
    lines = _aligned([[str(column) for column in columns], *cells])
    lines.insert(1, "-" * len(lines[0]))
    if len(value) > _ROWS:
        lines.append(f"… {_ROWS} of {len(value):,} rows are shown")
    return "\n".join(lines)


def _cell(row: Mapping[Any, Any], column: Any) -> str:
    value = row.get(column, "")
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


# Exceptions


def explained(error: BaseException, name: str) -> str:
    """An exception as a short traceback: the lines of the code that lead to it, and what it is.

    Those of earlier calls name the call. Those of this one do not, so that the same mistake reads
    the same each time.
    """
    if isinstance(error, SystemExit):
        return f"SystemExit: {error.code}. The interpreter goes on, with its variables."
    lines = []
    frames = traceback.extract_tb(error.__traceback__)
    for frame in frames:
        if frame.filename.startswith("<call "):
            where = "" if frame.name == "<module>" else f", in {frame.name}"
            call = "" if frame.filename == name else f"{frame.filename[1:-1]}, "
            lines.append(f"{call}line {frame.lineno}{where}: {frame.line}")
    if len(lines) > 10:
        lines[5:-5] = [f"… {len(lines) - 10:,} more lines …"]
    last = frames[-1]
    if lines and not last.filename.startswith("<call "):
        parts = last.filename.split("/")
        lines.append(f"{'/'.join(parts[-2:])}, line {last.lineno}, in {last.name}: {last.line}")
    if isinstance(error, SyntaxError) and error.filename == name:
        lines.append(f"line {error.lineno}: {(error.text or '').strip()[:500]}")
        text = f"{type(error).__name__}: {error.msg}"
    else:
        text = "".join(traceback.format_exception_only(type(error), error)).strip()
    text = text if len(text) <= 2_000 else f"{text[:1_000]} … {text[-1_000:]}"
    lines.append(text + _advice(error))
    cause = error.__cause__
    if cause is not None:
        lines.append(f"caused by {type(cause).__name__}: {str(cause)[:500]}")
    return "\n".join(lines)


def _advice(error: BaseException) -> str:
    """What to do about mistakes that models make again and again."""
    if isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name:
        return f". {error.name} is not installed here: do it with Python's own modules."
    if isinstance(error, NameError) and error.name:
        return ". Only variables of earlier Python calls are here. Files are read with open()."
    if (
        isinstance(error, SyntaxError)
        and error.msg == "invalid syntax"
        and _ANOTHER.search(error.text or "")
    ):
        return ". Write each statement on a line of its own, indented, without semicolons."
    return ""


# Figures


def _save_figures(call: str, *, kept: bool) -> tuple[list[str], str | None]:
    """Save the figures that are open, and close them; `kept`: the code saved them itself."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return [], None
    names: list[str] = []
    problem = None
    try:
        for number in [] if kept else pyplot.get_fignums():
            name = _free_name()
            pyplot.figure(number).savefig(name, bbox_inches="tight")
            names.append(name)
        pyplot.close("all")
    except BaseException as error:  # noqa: BLE001 - so is what its figures raise
        problem = explained(error, call)
    return names, problem


def _free_name() -> str:
    number = 1
    while os.path.exists(f"figure-{number}.png"):
        number += 1
    return f"figure-{number}.png"


if __name__ == "__main__":
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
    main(int(sys.argv[1]))
