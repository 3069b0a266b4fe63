"""Make the golden logits that tests/engine/test_reference.py compares with.

Not run by the tests: it needs torch and transformers, which Oneiros does not. In an environment
that holds Oneiros as well (its C kernels are not needed), from the root of the source tree:

    pip install torch==2.13.0 transformers==5.23.0
    python -m tests.engine.make_golden_logits networks
    python -m tests.engine.make_golden_logits smollm2-135m ../shared/data
    python -m tests.engine.make_golden_logits qwen2.5-coder-0.5b ../shared/data

The weights are dequantised to float32, handed to the implementation in transformers, and run in
float32 over 512 tokens of real text: a page of Shakespeare, then Python. A full set of logits is
100 MB, so that of each position only the 64 most probable tokens are kept, with the log-sum-exp of
all of them. `networks` makes all logits of the last positions of the small random networks in
golden.py, which cover what the two models lack.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from oneiros.model.catalog import resolve
from oneiros.model.parameters import Parameters, open_parameters
from oneiros.model.tokenizer import load_tokenizer
from tests.engine.golden import NETWORK_POSITIONS, NETWORKS, golden_path, network_ids
from tests.model.builders import build_folder

KEPT = 64
SHAKESPEARE_TOKENS = 320
CODE_TOKENS = 192


def main(name: str, data: str = "") -> None:
    """Write the golden file of a catalog model (its name), or of the small networks."""
    torch.set_num_threads(2)
    transformers.logging.disable_progress_bar()
    if name == "networks":
        logits = {network: network_logits(network) for network in NETWORKS}
        np.savez_compressed(golden_path(name), **logits)
        return
    parameters = open_parameters(resolve(name))
    ids = real_text(parameters, Path(data))
    np.savez_compressed(golden_path(name), **most_probable(ids, model_logits(parameters, ids)))


def network_logits(name: str) -> NDArray[np.float32]:
    """The last logits of a small network, which transformers reads from a model folder."""
    with tempfile.TemporaryDirectory() as directory:
        folder = build_folder(Path(directory) / name, NETWORKS[name])
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return logits_of(model, network_ids(name))[-NETWORK_POSITIONS:]


def real_text(parameters: Parameters, data: Path) -> NDArray[np.int32]:
    """Token ids of a page of tinyshakespeare, followed by the first HumanEval problems."""
    tokenizer = load_tokenizer(parameters)
    shakespeare = (data / "text" / "tinyshakespeare.txt").read_text()
    with gzip.open(data / "code" / "HumanEval.jsonl.gz", "rt") as lines:
        problems = [json.loads(next(lines)) for _ in range(4)]
    code = "".join(problem["prompt"] + problem["canonical_solution"] for problem in problems)
    prose_ids = tokenizer.prompt_ids(shakespeare[:4000])[:SHAKESPEARE_TOKENS]
    code_ids = tokenizer.encode(code)[:CODE_TOKENS]
    return np.array(prose_ids + code_ids, dtype=np.int32)


def most_probable(ids: NDArray[np.int32], logits: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """What is kept of (tokens, vocabulary) logits."""
    top = np.argpartition(logits, -KEPT, axis=1)[:, -KEPT:]
    order = np.argsort(-np.take_along_axis(logits, top, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, axis=1)
    wide = logits.astype(np.float64)
    largest = wide.max(axis=1, keepdims=True)
    log_sum = largest[:, 0] + np.log(np.exp(wide - largest).sum(axis=1))
    return {
        "ids": ids,
        "top_ids": top.astype(np.uint32 if logits.shape[1] > 1 << 16 else np.uint16),
        "top_logits": np.take_along_axis(logits, top, axis=1),
        "log_sum_exp": log_sum,
    }


def model_logits(parameters: Parameters, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Logits (tokens, vocabulary) of a GGUF file, whose weights transformers gets as float32."""
    architecture = parameters.architecture
    if architecture.rope_scaling is not None:
        raise SystemExit("this model scales its positions: say so in the configuration below")
    config = transformers.AutoConfig.for_model(
        architecture.name,
        vocab_size=architecture.vocabulary,
        hidden_size=architecture.width,
        intermediate_size=architecture.ffn_width,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.kv_heads,
        head_dim=architecture.head_dim,
        max_position_embeddings=architecture.context,
        rms_norm_eps=architecture.rms_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": architecture.rope_base},
        tie_word_embeddings=architecture.tied,
        attn_implementation="eager",
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    weights = {name: torch.tensor(values) for name, values in hub_tensors(parameters)}
    if architecture.tied:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, strict=True)
    return logits_of(model, ids)


def logits_of(model: transformers.PreTrainedModel, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """One forward pass over all ids."""
    with torch.inference_mode():
        logits = model(torch.tensor(ids[None].astype(np.int64)), use_cache=False).logits
    result: NDArray[np.float32] = logits[0].numpy()
    return result


def hub_tensors(parameters: Parameters) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every tensor with the name and the row order that it has in transformers.

    There the two features of a rotated pair lie half a head apart; in GGUF's "llama" files they
    are neighbours in the query and key matrices.
    """
    half = parameters.architecture.head_dim // 2
    for name, tensor in parameters.tensors.items():
        values = tensor.float32()
        if parameters.architecture.rope_interleaved and ("attn_q." in name or "attn_k." in name):
            pairs = values.reshape(-1, half, 2, *values.shape[1:])
            values = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
        yield hub_name(name), values


HUB_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hub_name(name: str) -> str:
    """The name that a tensor has in transformers: blk.3.ffn_up.weight is a layer's up_proj."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{HUB_NAMES[parts[2]]}.{parts[3]}"
    return f"{HUB_NAMES[parts[0]]}.{parts[1]}"


if __name__ == "__main__":
    main(*sys.argv[1:])
