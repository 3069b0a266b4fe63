"""litgpt as a worker process: a side of bench/training.py. Runs with .peers/litgpt on its path.

    python bench/training_parts/litgpt_worker.py SETTINGS       then a line for each update

SETTINGS is a JSON object. Each line of standard input asks for one update of all rows; the answer
is a JSON line with its seconds. Network, loss, clipping and optimizer are litgpt's own, and the
order is that of its `pretrain`; tokens are random, which costs what real ones cost.
"""

from __future__ import annotations

import json
import sys
import time

import lightning
import torch
from litgpt import GPT, Config
from litgpt.utils import chunked_cross_entropy


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision=settings["precision"])
    config = Config(
        n_layer=settings["layers"],
        n_head=settings["heads"],
        n_embd=settings["width"],
        intermediate_size=settings["ffn_width"],
        block_size=settings["context"],
        padded_vocab_size=settings["vocabulary"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    network = GPT(config)
    network.lm_head.weight = network.transformer.wte.weight
    forward = torch.compile(network) if settings["compile"] else network
    model = fabric.setup(forward)
    optimizer = fabric.setup_optimizers(
        torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    )
    rows, micro_batch = settings["rows"], settings["micro_batch"]
    shape = (micro_batch, settings["context"] + 1)
    print("{}", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(rows // micro_batch):
            tokens = torch.randint(settings["vocabulary"], shape)
            loss = chunked_cross_entropy(model(tokens[:, :-1].contiguous()), tokens[:, 1:])
            fabric.backward(loss / (rows // micro_batch))
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main()
