"""Tokens and logits by llama.cpp; run with a Python that has llama-cpp-python, not Oneiros.

Standard input: {"path": a GGUF file, "texts": [...]}. Standard output: for each text its "ids",
without and with what opens a text, and the path of a .npy of its float32 logits (tokens,
vocabulary); the model's chat "template".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np


def main() -> None:
    job = json.load(sys.stdin)
    model = llama_cpp.Llama(job["path"], n_ctx=256, n_threads=1, logits_all=True, verbose=False)
    answers = []
    for number, text in enumerate(job["texts"]):
        plain = model.tokenize(text.encode(), add_bos=False, special=False)
        opened = model.tokenize(text.encode(), add_bos=True, special=False)
        model.reset()
        model.eval(opened)
        logits = Path(job["path"]).with_suffix(f".{number}.npy")
        np.save(logits, model.scores[: len(opened)].astype(np.float32))
        answers.append({"ids": plain, "opened": opened, "logits": str(logits)})
    template = model.metadata["tokenizer.chat_template"]
    json.dump(
        {"answers": answers, "template": template, "name": model.metadata["general.name"]},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
