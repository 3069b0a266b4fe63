"""The two servers of a comparison, and requests that mean the same to both."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load.client import Body
from bench.load.servers import Server

CHAT = "/v1/chat/completions"
PEER_PROGRAM = Path(__file__).resolve().parent.parent.parent / ".peers" / "bin" / "llama-server"

# Tried with the load of bench/serving.py, by the processor time that a reply takes. Flash
# attention doubles it, and so does one cache for all slots. Steps of 64 tokens cost 1 to 2 % of the
# throughput, bring half of the first tokens sooner, and keep a long prompt from stopping the others
# for long. Repacked weights (the default) save Q4_0 7 %. Other types of keys and values, simpler
# samplers and doing without the second prompt cache save nothing.
PEER_SETTINGS = ("--flash-attn", "off", "--batch-size", "64", "--ubatch-size", "64")


@dataclass(frozen=True, slots=True)
class Side:
    """A running server and what it wants in a request besides what both understand."""

    server: Server
    model: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def chat(
        self, messages: Sequence[Mapping[str, str]], tokens: int, end_ids: frozenset[int]
    ) -> Body:
        """A greedy reply of exactly `tokens` tokens, streamed."""
        return {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": tokens,
            "temperature": 0,
            "logit_bias": {str(token): -100 for token in sorted(end_ids)},
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.extra,
        }


def start_ours(path: Path, home: Path, threads: int) -> Side:
    """Our server, with its defaults. Keys and values that it stores on disk go below `home`."""
    command = [
        *(sys.executable, "-m", "oneiros", "serve", "--model", str(path)),
        *("--port", "{port}", "--threads", str(threads)),
    ]
    server = Server("ours", command, {"ONEIROS_HOME": str(home)})
    return Side(server, _model(server))


def start_peer(path: Path, slots: int, context: int, threads: int) -> Side:
    """llama.cpp's server with `slots` sequences of `context` tokens each."""
    command = [
        *(str(PEER_PROGRAM), "--model", str(path), "--host", "127.0.0.1", "--port", "{port}"),
        *("--threads", str(threads), "--parallel", str(slots), "--ctx-size", str(slots * context)),
        *("--log-verbosity", "2", *PEER_SETTINGS),
    ]
    server = Server("llama.cpp", command)
    # It knows more tokens that end a reply than those of the model's file.
    return Side(server, _model(server), {"ignore_eos": True})


def _model(server: Server) -> str:
    return str(json.loads(server.get("/v1/models"))["data"][0]["id"])
