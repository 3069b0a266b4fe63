"""Who may import whom: the rooms' arrows, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"

# The rooms of each level may import their own level and those below.
LEVELS = (
    {"errors", "rendering"},
    {"model"},
    {"engine"},
    {"kernel", "memory"},
    {"devices"},
    {"thinking", "apps"},
    {"evaluation"},
    {"server"},
    {"cli"},
)
ALLOWED = {
    room: set().union(*LEVELS[: level + 1]) for level, rooms in enumerate(LEVELS) for room in rooms
}
ALLOWED["compression"] = {"errors", "rendering", "model", "engine", "compression"}
# No room below the server looks at detectors: no decision rests on them.
ALLOWED["detection"] = {"errors", "detection"}
ALLOWED["training"] = {"errors", "rendering", "model", "engine", "training"}
ALLOWED["evaluation"] |= {"training", "compression"}
ALLOWED["server"] |= {"compression", "detection"}
ALLOWED["cli"] |= {"training", "compression", "detection"}
# `import oneiros` offers the library, the engine and below, to whoever may use these.
for room in ALLOWED.keys() - {"engine"}:
    if "engine" in ALLOWED[room]:
        ALLOWED[room] |= {"__init__"}
ALLOWED["__init__"] = {"errors", "model", "engine", "__init__"}
ALLOWED["__main__"] = {"cli"}

FILES = sorted((SOURCE / "oneiros").rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(SOURCE / "oneiros").parts[0]
    return first.removesuffix(".py")


def imported_modules(path: Path, source: Path = SOURCE) -> set[str]:
    """Full names of all modules that a file imports, at its top or inside functions."""
    package = path.relative_to(source).parent.parts
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        match node:
            case ast.Import(names=aliases):
                names.update(alias.name for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                base = [*package[: len(package) - level + 1]] if level else []
                base += module.split(".") if module else []
                names.update(".".join((*base, alias.name)) for alias in aliases)
            case ast.Call(
                func=ast.Attribute(attr="import_module")
                | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                names.add(name)
    return names


def rooms_imported(path: Path) -> set[str]:
    rooms = set()
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] == "oneiros":
            second = parts[1] if len(parts) > 1 else "__init__"
            is_room = second in ("errors", "rendering") or (SOURCE / "oneiros" / second).is_dir()
            rooms.add(second if is_room else "__init__")  # `from oneiros import load`
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_what_lies_below_it(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED, f"{room} has no place in the picture yet: give it one in {__file__}"
    own = {room, "errors"}
    assert rooms_imported(path) <= ALLOWED[room] | own


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_training_imports_torch(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported_modules(path)}
    if room_of(path) != "training":
        assert not roots & {"torch", "transformers"}


def test_the_reader_of_imports_sees_every_form(tmp_path: Path) -> None:
    folder = tmp_path / "oneiros" / "engine"
    folder.mkdir(parents=True)
    file = folder / "x.py"
    file.write_text(
        "import numpy.linalg as la\n"
        "from . import neighbour\n"
        "from ..server import app\n"
        "def f():\n    from torch import nn\n    importlib.import_module('hidden')\n"
    )
    assert imported_modules(file, tmp_path) == {
        "numpy.linalg",
        "oneiros.engine.neighbour",
        "oneiros.server.app",
        "torch.nn",
        "hidden",
    }


def test_the_library_loads_without_torch() -> None:
    program = "import oneiros, oneiros.model.catalog, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
