"""`--adapter`: a model with an adapter, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.model.adapters import write_adapter
from tests.model.builders import build_folder, tiny_architecture

GREEDY = ("--temperature", "0", "--max-tokens", "8", "--threads", "1")


def test_an_adapter_is_added_to_the_model(
    oneiros: Callable[..., Any], refused: Callable[..., str], tmp_path: Path
) -> None:
    base = build_folder(tmp_path / "base", tiny_architecture())
    adapter = write_adapter(tmp_path / "shout", tiny_architecture(), size=0.3)
    replies = []
    for chosen in ((), ("--adapter", adapter)):
        done = oneiros("run", base, "Hello", *chosen, *GREEDY, "--json")
        assert done.returncode == 0, done.stderr
        replies.append(json.loads(done.stdout))
    assert replies[0]["text"] != replies[1]["text"]
    assert [reply["model"] for reply in replies] == [str(base), f"{base}+shout"]
    other = write_adapter(tmp_path / "other", tiny_architecture(layers=3))
    message = refused("complete", base, "Hello", "--adapter", other)
    assert "the adapter belongs to another model" in message
