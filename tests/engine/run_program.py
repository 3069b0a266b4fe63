"""Exports a model, compiles its run.c, and asks the program for logits and texts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneiros.model.export import export
from oneiros.model.parameters import Parameters


def compiled_program(folder: Path) -> Path:
    """Compile run.c into `folder`; one program runs every exported model."""
    flags = ("-O3", "-march=native", "-Wall", "-Wextra", "-Werror")
    program = folder / "run"
    with resources.as_file(resources.files("oneiros.model") / "run.c") as source:
        subprocess.run(["gcc", *flags, source, "-o", program, "-lm"], check=True)
    return program


class RunProgram:
    """An exported model and the program that runs it."""

    def __init__(self, program: Path, parameters: Parameters, folder: Path) -> None:
        """Export into `folder`."""
        self.program = program
        self.vocabulary = parameters.architecture.vocabulary
        self.folder = folder
        export(parameters, folder)

    def logits(self, ids: Iterable[int], *, exact: bool = False) -> NDArray[np.float32]:
        """Float32 (ids, vocabulary): the logits of every position.

        Args:
            ids: the tokens to read.
            exact: compute in float32 throughout, and not in the roundings of the engine.
        """
        path = self.folder / "logits.f32"
        self._run(*(["-f"] if exact else []), "-l", path.name, text=" ".join(map(str, ids)))
        logits = np.fromfile(path, np.float32).reshape(-1, self.vocabulary)
        path.unlink()
        return logits

    def text(self, prompt: str, tokens: int, *, completion: bool = False) -> str:
        """What the program writes after a prompt, which is a chat message if not `completion`."""
        mode = ["-c"] if completion else []
        return self._run(*mode, "-n", str(tokens), text=prompt).removesuffix("\n")

    def _run(self, *arguments: str, text: str) -> str:
        program = subprocess.run(
            [self.program, "model.bin", *arguments],
            cwd=self.folder,
            input=text.encode(),
            capture_output=True,
        )
        assert program.returncode == 0, program.stderr.decode()
        return program.stdout.decode(errors="replace")
