"""Make tests/data/lm-eval-scores.json: what lm-evaluation-harness finds for SmolLM2-135M.

Not run by the tests. It needs the training environment, and a Python that has lm-eval 0.4.13,
transformers and torch; `make peers` builds one in .peers. From the root of the source tree:

    python -m tests.evaluation.make_lm_eval_goldens --peer .peers/bin/python ../shared/data

The default model's weights are taken out of its GGUF file into a Hugging Face folder (float32 of
the same values), and the harness runs that in transformers: tokenizer, network, prompts and
scoring are none of ours. The items are the first of PIQA and LAMBADA.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oneiros.model import catalog
from oneiros.training.weights import load_model, save_folder
from tests.evaluation.lm_eval_cases import FILE, prompt_sha256


def records(path: Path, count: int) -> list[dict[str, Any]]:
    """The first items of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()[:count]]


def write_lines(path: Path, items: Iterable[dict[str, Any]]) -> str:
    """A JSON-lines file; gives its name."""
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(path)


def as_piqa(item: dict[str, Any]) -> dict[str, Any]:
    """An item of llm-foundry's file with the fields of the original data."""
    first, second = item["choices"]
    goal = item["query"].removeprefix("Question: ").strip()
    return {"goal": goal, "sol1": first, "sol2": second, "label": item["gold"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True, help="a Python that has lm-eval")
    parser.add_argument("--piqa", type=int, default=150, help="items")
    parser.add_argument("--lambada", type=int, default=100, help="items")
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    benchmarks = arguments.data / "benchmarks"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = catalog.resolve(catalog.DEFAULT_MODEL)
        save_folder(load_model(model), folder / "model", tokenizer=model)
        piqa = records(benchmarks / "piqa.jsonl", arguments.piqa)
        lambada = records(benchmarks / "lambada_openai.jsonl", arguments.lambada)
        job = {
            "path": str(folder / "model"),
            "piqa": write_lines(folder / "piqa.jsonl", map(as_piqa, piqa)),
            "lambada": write_lines(
                folder / "lambada.jsonl",
                ({"text": f"{item['context']} {item['continuation']}"} for item in lambada),
            ),
        }
        (folder / "job.json").write_text(json.dumps(job))
        peer = Path(__file__).with_name("lm_eval_peer.py")
        done = subprocess.run(
            [arguments.peer, str(peer), str(folder / "job.json")],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout.splitlines()[-1])
    for task in ("piqa", "lambada"):
        found[task]["prompt_sha256"] = [prompt_sha256(p) for p in found[task].pop("prompts")]
        found[task]["logprobs"] = [[round(x, 5) for x in row] for row in found[task]["logprobs"]]
    FILE.write_text(json.dumps(found) + "\n")
    print(f"{FILE}: {found['piqa']['results']}, {found['lambada']['results']}")


if __name__ == "__main__":
    main()
