"""Runs tests on mutants: each in a process of its own, with one module changed as it is imported.

pytest is started once and forks where it would begin to collect tests, so that a mutant costs the
import of a few modules and its tests. Nothing is written to the source tree.

    python -m tests.security.mutants kernel.policy            every mutant of a module
    python -m tests.security.mutants kernel.policy 40 7       a sample of 40, from seed 7

Each line that is printed is a mutant: "killed" or "survived", a tab, and its name.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import random
import resource
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import CodeType, ModuleType

import hypothesis
import pytest

from tests.security.mutations import Mutant, mutants_of, mutated

SOURCES = Path(__file__).parents[2] / "src" / "oneiros"
_KERNEL = "tests/kernel/test_"
_DECISIONS = (
    f"{_KERNEL}policy.py",
    f"{_KERNEL}policy_questions.py",
    f"{_KERNEL}evasions.py",
    f"{_KERNEL}policy_rules.py",
    f"{_KERNEL}policy_flows.py",
    f"{_KERNEL}policy_meaning.py",
    f"{_KERNEL}own_words.py",
)
# Modules and the tests that have to notice a change, the likeliest first.
TESTS: dict[str, tuple[str, ...]] = {
    "kernel.policy": _DECISIONS,
    "kernel.anchoring": _DECISIONS,
    "kernel.flows": _DECISIONS,
    "kernel.provenance": _DECISIONS,
    "kernel.label": (f"{_KERNEL}label.py",),
    "kernel.readings": (f"{_KERNEL}readings.py", *_DECISIONS),
    "kernel.anchors": (f"{_KERNEL}anchors.py",),
    "kernel.anchor_words": (f"{_KERNEL}anchors.py",),
    "kernel.anchor_phrases": (f"{_KERNEL}anchors.py",),
    "kernel.anchor_dates": (f"{_KERNEL}anchors.py",),
}
# Each may import those before it: what comes before a changed module is imported once for all.
_ORDER = (
    "contract",
    "label",
    "anchor_words",
    "anchor_phrases",
    "anchor_dates",
    "anchors",
    "readings",
    "verdict",
    "anchoring",
    "flows",
    "provenance",
    "policy",
)
_SECONDS = 10  # of processor time: whoever takes longer is killed, and counts as noticed
_MEMORY = 4 * 2**30  # bytes of address space


def source_of(module: str) -> str:
    """The source text of a module, "kernel.policy"."""
    return (SOURCES / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


class Changed(MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports one module from other code than its file's."""

    def __init__(self, module: str, code: CodeType) -> None:
        super().__init__(f"oneiros.{module}", str(SOURCES / f"{module.replace('.', '/')}.py"))
        self._code = code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=self.path)

    def get_code(self, fullname: str) -> CodeType:
        return self._code


class Forks:
    """A plugin for pytest that runs the tests once for each mutant."""

    def __init__(self, module: str, mutants: Sequence[Mutant]) -> None:
        self._module = module
        self._mutants = mutants

    def pytest_collection(self, session: pytest.Session) -> bool:
        source = source_of(self._module)
        for name in _ORDER[: _ORDER.index(self._module.rpartition(".")[2])]:
            importlib.import_module(f"oneiros.kernel.{name}")
        if not self._passes(session, None):
            raise pytest.UsageError(f"the tests of {self._module} fail without any change")
        for mutant in self._mutants:
            code = compile(mutated(source, mutant), str(SOURCES), "exec")
            verdict = "survived" if self._passes(session, code) else "killed"
            print(verdict, mutant.name, sep="\t", file=sys.stderr, flush=True)
        session.items = []
        return True

    def _passes(self, session: pytest.Session, code: CodeType | None) -> bool:
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            status = 1
            try:
                if f"oneiros.{self._module}" in sys.modules:
                    raise ImportError(f"{self._module} is there already, unchanged")
                if code is not None:
                    sys.meta_path.insert(0, Changed(self._module, code))
                session.perform_collect()
                session.config.hook.pytest_runtestloop(session=session)
                status = 0 if session.testscollected and not session.testsfailed else 1
            finally:
                os._exit(status)
        return os.waitpid(child, 0)[1] == 0


def run(module: str, mutants: Sequence[Mutant]) -> int:
    """Runs the module's tests on mutants, and prints what became of them."""
    hypothesis.settings.register_profile(
        "mutants",
        max_examples=25,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    hypothesis.settings.load_profile("mutants")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = [
        "-x",
        "-q",
        "-s",
        "--tb=no",
        "--noconftest",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
    ]
    return pytest.main([*options, *TESTS[module]], plugins=[Forks(module, mutants)])


def sampled(module: str, size: int, seed: int) -> list[Mutant]:
    """Some of a module's mutants, the same for the same seed."""
    every = mutants_of(source_of(module), module)
    return random.Random(seed).sample(every, min(size, len(every)))


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    chosen = mutants_of(source_of(name), name)
    if numbers:
        chosen = sampled(name, *map(int, numbers))
    sys.exit(run(name, chosen) not in (0, pytest.ExitCode.NO_TESTS_COLLECTED))
