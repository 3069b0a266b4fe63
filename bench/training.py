"""How fast training here is beside litgpt and a plain loop, and how well it learns.

    python bench/training.py [--quick] [--json] [--case NAME ...] [--threads N]
                              [--eager] [--rounds N]

cpu 10M ctx-256: tokens per second of whole updates, 64 rows of 256 in micro-batches of 16, 6 layers
of width 384, characters. The peers are litgpt (`make peers`; the same architecture, AdamW) and a
loop in plain PyTorch after nanoGPT (bench/training_parts/plain.py; GPT-2's architecture, as large).
All take turns, eager and compiled, in bfloat16 where the machine computes it; the table has the
better setting of ours beside the best of the peers, and standard error has all of them. Ours is
what `oneiros train base` does: Muon, normalised queries and keys, document boundaries.

tinyshakespeare chars 4x128 ctx-64: loss on the last tenth of the text after 3 minutes of training
(evaluations not counted), the best along the way. The peer is the plain loop with nanoGPT's recipe
for this shape, 2,000 iterations of 12 rows; 1.88 is published for it.

sft dolly: SmolLM2-135M-Instruct on short conversations of Dolly. stop-rate: of the replies to
questions that were set aside, those that the model ends within 256 tokens. masked-loss: loss on
those replies after training with loss on replies alone; beside it, on every token.

lora smollm2: loss after LoRA with rank 8 over the loss after training all weights, in as many
steps; the peer is PEFT's LoRA in the same network and loop.

gpu depth-12, gpu tinyshakespeare 6x384x256: with a CUDA GPU; left out without one, which is said.
nanochat reports an MFU of about 0.5; nanoGPT a loss of 1.4697 in 3 minutes on an A100.

litgpt asks for an older huggingface_hub than the other packages here; it is installed without it,
and what is measured (its network, loss and updates) never needs it. It runs on our torch.
`--quick` is a smoke run of tiny networks: its numbers mean nothing, and nothing is claimed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from bench.report import Row, report
from bench.training_parts import pretraining, tuning
from bench.training_parts.characters import characters
from bench.training_parts.console import say
from oneiros.engine.machine import usable_cores
from oneiros.errors import OneirosError
from oneiros.training.processes import use_threads

QUICK_CHARACTERS = 20_000
CASES = (
    "cpu 10M ctx-256",
    "tinyshakespeare chars 4x128 ctx-64",
    "gpu depth-12",
    "gpu tinyshakespeare 6x384x256",
    "sft dolly",
    "lora smollm2",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run of tiny networks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--case", action="append", choices=CASES, help="only these cases")
    parser.add_argument("--threads", type=int, help="of PyTorch on the CPU (default: the cores)")
    parser.add_argument("--eager", action="store_true", help="no side compiled in the case cpu 10M")
    parser.add_argument("--rounds", type=int, default=3, help="of that case (default: 3)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    # Threads that wait for each other on busy cores would take most of a smoke run.
    threads = arguments.threads or (1 if arguments.quick else usable_cores())
    use_threads(threads)
    rows: list[Row] = []
    try:
        for case in arguments.case or CASES:
            if case.startswith("gpu") and not torch.cuda.is_available():
                say(f"{case}: left out, there is no CUDA GPU")
                continue
            say(case)
            with tempfile.TemporaryDirectory() as folder:
                if arguments.quick:
                    rows += _quick(case, Path(folder), threads)
                else:
                    speed = replace(
                        pretraining.FULL_SPEED,
                        compiled=not arguments.eager,
                        rounds=arguments.rounds,
                    )
                    rows += _full(case, Path(folder), threads, speed)
    except OneirosError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report("training", rows, arguments.json)
    return 0


def _full(case: str, folder: Path, threads: int, speed: pretraining.SpeedSize) -> Iterator[Row]:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    match case:
        case "cpu 10M ctx-256":
            yield from pretraining.speed_rows(case, characters(folder), speed, threads)
        case "tinyshakespeare chars 4x128 ctx-64":
            yield from pretraining.loss_rows(case, characters(folder), pretraining.CPU_LOSS, cpu)
        case "gpu depth-12":
            yield from pretraining.mfu_rows(case)
        case "gpu tinyshakespeare 6x384x256":
            yield from pretraining.loss_rows(case, characters(folder), pretraining.GPU_LOSS, gpu)
        case "sft dolly":
            yield from tuning.sft_rows(case, tuning.dolly(folder), folder)
        case "lora smollm2":
            yield from tuning.lora_rows(case, tuning.dolly(folder))


def _quick(case: str, folder: Path, threads: int) -> Iterator[Row]:
    """Whether everything runs, of what needs no GPU."""
    tiny: dict[str, Callable[[], Iterator[Row]]] = {
        "cpu 10M ctx-256": lambda: pretraining.speed_rows(
            case, characters(folder, QUICK_CHARACTERS), pretraining.QUICK_SPEED, threads
        ),
        "tinyshakespeare chars 4x128 ctx-64": lambda: pretraining.loss_rows(
            case,
            characters(folder, QUICK_CHARACTERS),
            pretraining.QUICK_LOSS,
            torch.device("cpu"),
        ),
        "sft dolly": lambda: tuning.sft_rows(case, tuning.sums(folder), folder),
        "lora smollm2": lambda: tuning.lora_rows(case, tuning.sums(folder)),
    }
    if case in tiny:
        for row in tiny[case]():
            yield replace(row, case=f"smoke {case}", target=None)


if __name__ == "__main__":
    sys.exit(main())
