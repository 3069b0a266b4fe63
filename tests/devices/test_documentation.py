"""The examples of docs/devices.md, as they stand there."""

import json
import re
import shutil
import sys
import types
from pathlib import Path

import pytest

from oneiros.devices.calculator import result_of
from oneiros.devices.egress import SiteList
from oneiros.kernel.tools import Tool, ToolError
from tests.devices.contexts import call, text_of


@pytest.fixture(scope="module")
def text(project_folder: Path) -> str:
    return (project_folder / "docs" / "devices.md").read_text()


def snippets(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_example_of_a_device_works(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    exec(snippets(text, "python")[0], module.__dict__)
    tool = module.disk_space
    assert isinstance(tool, Tool)
    assert tool.parameters == json.loads(snippets(text, "json")[0])
    total = f"{shutil.disk_usage('/').total / 1e9:.1f} GB"
    assert total in text_of(tool, folder="/")
    with pytest.raises(ToolError, match="folder"):
        call(tool, folder=["/"])


def test_the_calculator_says_what_is_shown(text: str) -> None:
    lines = re.findall(r'^> calculate\("(.*?)"\) +(.*)$', text, re.MULTILINE)
    assert len(lines) == 7
    for expression, shown in lines:
        if shown.startswith("Error: "):
            with pytest.raises(ToolError, match=shown.removeprefix("Error: ").removesuffix(" …")):
                result_of(expression)
        else:
            assert result_of(expression).text == f"{expression} {shown}"


def test_the_list_of_sites_is_read_as_described(text: str, tmp_path: Path) -> None:
    file = tmp_path / "oneiros.toml"
    file.write_text(snippets(text, "toml")[0])
    assert SiteList(file)("assistant") == ["example.org", "*.wikipedia.org", "127.0.0.1:8888"]
    assert SiteList(file)("news") == ["*.paper.example"]
    assert SiteList(file)("mcp:tracker") == ["tracker.corp.example:443"]
    assert SiteList(file)("other") == ["*"]
