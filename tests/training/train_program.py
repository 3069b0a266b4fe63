"""A small run in a process of its own, which may kill itself: for the tests of resuming.

Usage: python -m tests.training.train_program SHARDS RUN [--kill-at STEP] [SETTING=VALUE...]
The run's losses are in RUN/metrics.jsonl.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import torch

from oneiros.training.events import Event, Stepped
from oneiros.training.pretrain import pretrain
from oneiros.training.processes import joined_processes
from oneiros.training.run_folder import RunFolder
from oneiros.training.shards import open_shards
from tests.training.builders import byte_tokenizer, small_config


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shards", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_intermixed_args()
    settings: dict[str, int | str] = {}
    for setting in arguments.settings:
        name, value = setting.split("=")
        settings[name] = int(value) if value.isdecimal() else value

    def report(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == arguments.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    arguments.run.mkdir(exist_ok=True)
    with joined_processes(torch.device("cpu")) as processes:
        pretrain(
            small_config(**settings),
            open_shards(arguments.shards),
            byte_tokenizer(),
            RunFolder(arguments.run),
            processes,
            report=report,
        )


if __name__ == "__main__":
    main()
