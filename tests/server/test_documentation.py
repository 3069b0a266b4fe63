"""The examples of docs/conversations.md run as they are."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from oneiros.engine.local_conversation import LocalConversation
from oneiros.engine.local_model import LocalModel, start_local_model
from oneiros.engine.worker import EngineSettings
from oneiros.server.app import create_app
from oneiros.server.lifecycle import address_of, bind
from oneiros.server.model_pool import ModelPool, ModelSource
from oneiros.server.settings import Settings


@pytest.fixture(scope="module")
def examples(project_folder: Path) -> list[str]:
    page = (project_folder / "docs" / "conversations.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def address(default_model_path: Path) -> Iterator[str]:
    """A server with the default model, in a thread with its own event loop."""
    settings = EngineSettings(str(default_model_path), context=1024, kv_disk=0)

    async def load() -> LocalModel:
        return await start_local_model(settings, "smollm2-135m", child=False)

    pool = ModelPool([ModelSource("smollm2-135m", "language", load)])
    app = create_app(pool, Settings())
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    listener = bind("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield address_of(listener)
    server.should_exit = True
    thread.join()
    asyncio.run(pool.close())


def defined(example: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(example, names)
    return names


def test_whole_programs_run(
    examples: list[str], address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = [example for example in examples if "asyncio.run(" in example]
    assert len(programs) == 2
    for program in programs:
        defined(program.replace("http://127.0.0.1:8000", address))
        assert "colo" in capsys.readouterr().out


def test_functions_do_what_the_page_says(examples: list[str], default_model_path: Path) -> None:
    names: dict[str, Any] = {}
    for example in examples:
        if "asyncio.run(" not in example:
            names |= defined(example)

    async def all_of_them() -> None:
        settings = EngineSettings(str(default_model_path), context=1024, kv_disk=0)
        model = await start_local_model(settings, child=False)
        conversation = LocalConversation(model, [{"role": "user", "content": "Tell me a story."}])
        assert len((await names["first_words"](conversation, 3)).split()) >= 3
        assert conversation.messages[-1]["role"] == "assistant"
        assert len(await names["three_opinions"](conversation)) == 3
        again = names["saved_and_restored"](conversation, model)
        assert again.tokens == conversation.tokens
        assert len(names["without_its_beginning"](again)) == 2
        assert "2 messages" in again.messages[0]["content"]
        assert await names["answered"](LocalConversation(model), "What time is it in Rome?")
        await model.service.close()

    asyncio.run(asyncio.wait_for(all_of_them(), 120))
    assert names["structured"].response_schema["type"] == "object"
