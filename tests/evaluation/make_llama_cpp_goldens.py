"""Make tests/data/llama-cpp-scores.json: what llama.cpp scores on the windows and examples.

Not run by the tests. It needs a Python that has llama-cpp-python, of any version and build;
`make peers` builds one in .peers. From the root of the source tree, for all cases or some:

    python -m tests.evaluation.make_llama_cpp_goldens --llama .peers/bin/python ../shared/data
    python -m tests.evaluation.make_llama_cpp_goldens --llama .peers/bin/python ../shared/data \
        "smollm2-135m q4_1"

llama.cpp reads the token ids that our tokenizers give, so that what is compared is the network
alone. Each case names the version of llama-cpp-python, the SHA-256 of the model file and those of
the token ids, by which the tests know that they speak of the same file and text.

--repack lets llama.cpp rearrange the weights for the processor it runs on, which is faster. With
AMX some versions crash in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import load_tokenizer
from tests.evaluation.llama_cpp_cases import (
    CASES,
    GOLDENS,
    WINDOW,
    Case,
    id_windows,
    lambada,
    model_file,
    shakespeare,
)
from tests.model.tokenizer_texts import digest

PEER = Path(__file__).with_name("llama_cpp_peer.py")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--llama", type=Path, required=True, help="Python with llama-cpp-python")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repack", action="store_true")
    options.add_argument("data_folder", type=Path)
    options.add_argument("cases", nargs="*", metavar="CASE")
    arguments = options.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        options.error(f"no such cases: {', '.join(unknown)}; there are {', '.join(CASES)}")
    goldens = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {}
    for name in arguments.cases or CASES:
        begun = time.perf_counter()
        goldens[name] = golden(CASES[name], arguments)
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
        kept = {name: goldens[name] for name in CASES if name in goldens}
        GOLDENS.write_text(json.dumps(kept, indent=1) + "\n")


def golden(case: Case, arguments: argparse.Namespace) -> dict[str, object]:
    """llama.cpp's scores of one case."""
    with tempfile.TemporaryDirectory() as folder:
        path = model_file(case, Path(folder))
        parameters = open_parameters(path)
        tokenizer = load_tokenizer(parameters)
        ids = shakespeare(tokenizer, arguments.data_folder, case.windows)
        examples = lambada(tokenizer, arguments.data_folder, case.examples)
        job = {
            "path": str(path),
            "threads": arguments.threads,
            "repack": arguments.repack,
            "windows": id_windows(ids),
            "examples": [(example.context, example.target) for example in examples],
        }
        run = subprocess.run(
            [arguments.llama, PEER], input=json.dumps(job), stdout=subprocess.PIPE, text=True
        )
        if run.returncode != 0:
            raise SystemExit(f"{path.name}: llama.cpp ended with status {run.returncode}")
        scores = json.loads(run.stdout)
        return {
            "llama_cpp_python": scores["version"],
            "file_sha256": parameters.sha256(),
            "perplexity": {
                "tokens": len(ids),
                "window": WINDOW,
                "ids_sha256": digest(ids),
                "nats": [round(nats, 4) for nats in scores["nats"]],
            },
            "lambada": {
                "examples": len(examples),
                "ids_sha256": digest([i for e in examples for i in e.context + e.target]),
                "correct": scores["correct"],
            },
        }


if __name__ == "__main__":
    main()
