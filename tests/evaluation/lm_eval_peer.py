"""Evaluate a model with lm-evaluation-harness, on items from a file.

Run by make_lm_eval_goldens.py with a Python that has lm-eval and transformers, and nothing of
Oneiros. The argument is a JSON file:

    path     a Hugging Face folder
    piqa     a JSON-lines file of {"goal", "sol1", "sol2", "label"}
    lambada  a JSON-lines file of {"text"}

Both tasks are defined here as the harness defines its own piqa and lambada_openai, except that
they read these files. Standard output ends with a line of JSON: `version`, and for each task
`prompts` (of each item, [context, continuation] of every choice), `logprobs` (of these, in nats),
`right` (the harness' own accuracy by item) and `results` (its table).
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval

LOCAL = {"dataset_path": "json", "test_split": "test", "num_fewshot": 0}
PIQA = {
    "task": "piqa_local",
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{goal}}\nAnswer:",
    "doc_to_target": "label",
    "doc_to_choice": "{{[sol1, sol2]}}",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
LAMBADA = {
    "task": "lambada_local",
    "output_type": "loglikelihood",
    "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
    "doc_to_target": "{{' '+text.split(' ')[-1]}}",
    "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
}


def task(definition: dict[str, Any], file: str) -> dict[str, Any]:
    """A task over a file."""
    return LOCAL | definition | {"dataset_kwargs": {"data_files": {"test": file}}}


def summary(samples: list[dict[str, Any]], results: dict[str, Any]) -> dict[str, Any]:
    """What the tests compare."""
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    return {
        "prompts": [list(s["arguments"]) for s in ordered],
        "logprobs": [[float(r[0][0]) for r in s["resps"]] for s in ordered],
        "right": [int(s["acc"]) for s in ordered],
        "results": {k: v for k, v in results.items() if isinstance(v, float)},
    }


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": job["path"], "dtype": "float32"},
        tasks=[task(PIQA, job["piqa"]), task(LAMBADA, job["lambada"])],
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
    )
    output = {
        name: summary(found["samples"][f"{name}_local"], found["results"][f"{name}_local"])
        for name in ("piqa", "lambada")
    }
    print(json.dumps({"version": version("lm-eval")} | output))


if __name__ == "__main__":
    main()
