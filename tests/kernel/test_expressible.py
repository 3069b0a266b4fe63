"""Texts that a model's vocabulary lacks reach the model all the same, in other characters."""

from __future__ import annotations

import asyncio
from pathlib import Path

from oneiros.kernel.label import PUBLIC, Label
from oneiros.kernel.models import OpenModels
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.tools import ToolResult
from oneiros.model.chat_format import load_chat_format
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import load_tokenizer
from tests.engine.fakes import scripted_model
from tests.kernel.running import PlainMemory, contents, idle, running, tool, until

ODD = "odd\x04 \U00040000 \ud800"


class OddFacts(PlainMemory):
    def facts(self, owner: str) -> tuple[str, Label]:
        return ODD, PUBLIC


def test_the_default_model_reads_what_it_has_no_bytes_for(
    tmp_path: Path, default_model_path: Path
) -> None:
    async def odd(arguments, context):
        return ToolResult(ODD)

    parameters = open_parameters(default_model_path)
    tokenizer = load_tokenizer(parameters)
    model, service = scripted_model(tokenizer, load_chat_format(parameters, tokenizer))
    called = '<tool_call>\n{"name": "odd", "arguments": {"a": "\\u0004"}}\n</tool_call>'
    service.replies += [tokenizer.encode(called), tokenizer.encode("Odd.")]

    async def main() -> None:
        models = OpenModels({"scripted": model}, "scripted")
        given = tool("odd", odd, parameters={"type": "object", "description": "\x04"})
        async with running(tmp_path, given, models=models, memory=OddFacts()) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text=f"hello {ODD}"))
            await until(kernel, lambda: idle(kernel, pid))
            assert contents(kernel, pid)[-1] == ("assistant", "Odd.")
            prompt = tokenizer.decode(service.requests[-1].prompt)
            assert "hello odd\ufffd \ufffd" in prompt
            assert contents(kernel, pid)[1][1].startswith("hello odd\x04 \U00040000")
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())
    assert OpenModels({"scripted": model}, "scripted").count("scripted", ODD) > 0
