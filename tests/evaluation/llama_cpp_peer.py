"""Score windows of tokens and LAMBADA examples with llama.cpp.

Run by make_llama_cpp_goldens.py with a Python that has llama-cpp-python and NumPy, and nothing of
Oneiros. Standard input is a JSON object:

    path            the GGUF file
    threads         how many
    repack          let llama.cpp rearrange the weights for this processor
    windows         lists of token ids, each scored on its own
    examples        [context ids, target ids] each

Standard output is one: `version` of llama-cpp-python, `nats` of each window (the negative
log-likelihood of all its tokens but the first, summed) and `correct`, a string of a "1" for each
example whose target is the most probable continuation token by token, and a "0" for the others.
"""

from __future__ import annotations

import ctypes
import json
import sys

import llama_cpp
import numpy as np

TOKENS = 512


class Peer:
    """A model in llama.cpp that reads up to TOKENS tokens at once."""

    def __init__(self, path: str, threads: int, repack: bool) -> None:
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_default_params()
        model.n_gpu_layers = 0
        model.use_extra_bufts = repack
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), model)
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = context.n_batch = context.n_ubatch = TOKENS
        context.n_threads = context.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, context)
        self.memory = llama_cpp.llama_get_memory(self.context)
        vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self.batch = llama_cpp.llama_batch_init(TOKENS, 0, 1)

    def logits(self, tokens: list[int], wanted: int) -> np.ndarray:
        """Logits of the last `wanted` of some tokens, with nothing before them.

        Returns float32 (wanted, vocabulary), valid until the next call.
        """
        llama_cpp.llama_memory_clear(self.memory, True)
        self.batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            self.batch.token[i] = token
            self.batch.pos[i] = i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = i >= len(tokens) - wanted
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama.cpp cannot decode these tokens")
        address = ctypes.cast(
            llama_cpp.llama_get_logits(self.context), ctypes.POINTER(ctypes.c_float)
        )
        return np.ctypeslib.as_array(address, (wanted, self.vocabulary))


def nats(peer: Peer, tokens: list[int]) -> float:
    """Negative log-likelihood of the tokens after the first."""
    total = 0.0
    for row, target in zip(peer.logits(tokens, len(tokens))[:-1], tokens[1:], strict=True):
        exact = row.astype(np.float64)
        largest = exact.max()
        total += largest + np.log(np.exp(exact - largest).sum()) - exact[target]
    return float(total)


def correct(peer: Peer, context: list[int], target: list[int]) -> bool:
    """Whether every token of the target is the most probable one after those before it."""
    logits = peer.logits(context + target[:-1], len(target))
    return bool(np.array_equal(logits.argmax(axis=1), target))


def main() -> None:
    job = json.load(sys.stdin)
    silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silence, None)
    peer = Peer(job["path"], job["threads"], job["repack"])
    json.dump(
        {
            "version": llama_cpp.__version__,
            "nats": [nats(peer, window) for window in job["windows"]],
            "correct": "".join(str(int(correct(peer, *example))) for example in job["examples"]),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
