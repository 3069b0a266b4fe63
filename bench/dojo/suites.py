"""AgentDojo's suites: environments with injections, tasks with their calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from agentdojo.agent_pipeline.ground_truth_pipeline import GroundTruthPipeline
from agentdojo.attacks.important_instructions_attacks import ImportantInstructionsAttack
from agentdojo.functions_runtime import FunctionsRuntime
from agentdojo.task_suite.load_suites import get_suite
from agentdojo.types import get_text_content_as_str

from bench.dojo.attacks import WRITTEN
from bench.dojo.contracts import CONTRACTS
from bench.dojo.machine import Machine
from bench.dojo.peer import VERSION
from bench.dojo.planner import Planned
from bench.dojo.runtime import KernelPipeline, KernelRuntime
from oneiros.devices.calculator import calculator
from oneiros.kernel.contract import Contract


class _Target(KernelPipeline):
    """Whom attacks address: they put a model's name into their text."""

    name = "local"

    def __init__(self) -> None: ...


@dataclass(frozen=True)
class Suite:
    """A suite with its kernel. Environments are copies, made in memory."""

    name: str
    contracts: Mapping[str, Contract]
    runtime: KernelRuntime
    machine: Machine

    @classmethod
    def open(cls, name: str, folder: Path, *, defended: bool = True) -> Suite:
        """Open a suite on a journal in an empty folder.

        Args:
            name: of the suite.
            folder: of the journal.
            defended: False: with contracts that say nothing, so that everything is allowed.
        """
        contracts = CONTRACTS[name]
        acting = frozenset(one for one, its in contracts.items() if its.effects or its.sinks)
        runtime = KernelRuntime(get_suite(VERSION, name).tools, acting)
        said = contracts if defended else dict.fromkeys(contracts, Contract())
        machine = Machine(folder, [*runtime.tools(said), calculator()])
        return cls(name, contracts, runtime, machine)

    def close(self) -> None:
        """Let go of the folder."""
        self.machine.close()

    @property
    def theirs(self) -> Any:
        """AgentDojo's own."""
        return get_suite(VERSION, self.name)

    @property
    def user_tasks(self) -> dict[int, Any]:
        return {_number(name): task for name, task in self.theirs.user_tasks.items()}

    @property
    def injection_tasks(self) -> dict[int, Any]:
        return {_number(name): task for name, task in self.theirs.injection_tasks.items()}

    @cached_property
    def _attack(self) -> Any:
        return ImportantInstructionsAttack(self.theirs, _Target())

    @cached_property
    def _canaries(self) -> Any:
        return self.theirs.load_and_inject_default_environment(self._attack.canary_injections)

    @cached_property
    def _made(self) -> dict[tuple[tuple[str, str], ...], Any]:
        return {}  # environments by their injections: checking addresses takes long

    @cached_property
    def _dumped(self) -> dict[str, Any]:
        dumped: dict[str, Any] = self._canaries.model_dump(mode="json", round_trip=True)
        return dumped

    @cached_property
    def _defaults(self) -> dict[str, str]:
        canaries: dict[str, str] = self._attack.canary_injections
        usual = self.theirs.get_injection_vector_defaults()
        # They stand in quotes in a YAML file, where "\\t" is a tabulator.
        return {canary: yaml.safe_load(f'"{usual[name]}"') for name, canary in canaries.items()}

    def environment(
        self,
        injections: Mapping[str, str] | None = None,
        plant: Callable[[dict[str, Any]], None] | None = None,
    ) -> Any:
        """A fresh environment.

        Args:
            injections: texts by the vector that they are put in place of.
            plant: changes its data.
        """
        key = tuple(sorted((injections or {}).items()))
        if plant is None and key in self._made:
            return self._made[key].model_copy(deep=True)
        wanted = {self._attack.canary_injections[vector]: text for vector, text in key}
        replaced: Any = _replaced(self._dumped, self._defaults | wanted)
        if plant is not None:
            plant(replaced)
        made = type(self._canaries).model_validate(replaced)
        if plant is None:
            self._made[key] = made.model_copy(deep=True)
        return made

    def injections(self, user: Any, injection: Any) -> dict[str, str]:
        """Where an attack stands that a user's task reads, and what it says."""
        texts: dict[str, str] = self._attack.attack(user, injection)
        return texts

    @cached_property
    def _read_after(self) -> dict[str, int]:
        return {}

    def read_after(self, user: Any) -> int:
        """How many of a task's calls have been made when the first injection was read."""
        if user.ID not in self._read_after:
            environment = user.init_environment(self._canaries.model_copy(deep=True))
            runtime = FunctionsRuntime(self.theirs.tools)
            *_, messages, _ = GroundTruthPipeline(user).query(user.PROMPT, runtime, environment)
            results = [message for message in messages if message["role"] == "tool"]
            texts = [get_text_content_as_str(message["content"]) for message in results]
            canaries = list(self._attack.canary_injections.values())
            self._read_after[user.ID] = 1 + next(
                n for n, text in enumerate(texts) if any(canary in text for canary in canaries)
            )
        return self._read_after[user.ID]

    def calls(self, task: Any, environment: Any) -> list[Planned]:
        """The calls of a task's ground truth; where AgentDojo gives none, those written here."""
        written = WRITTEN.get((self.name, _number(task.ID)))
        if written is not None and not hasattr(task, "PROMPT"):
            return written(environment)
        return [Planned(call.function, dict(call.args)) for call in task.ground_truth(environment)]


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def _replaced(value: object, texts: Mapping[str, str]) -> object:
    if isinstance(value, str):
        if "CANARY" in value:
            for canary, text in texts.items():
                value = value.replace(canary, text)
        return value
    if isinstance(value, Mapping):
        return {_replaced(key, texts): _replaced(one, texts) for key, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one, texts) for one in value]
    return value
