"""The snippets of docs/serving.md, as they stand there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oneiros.server.metrics import Metrics
from oneiros.server.scanning import ScanCounts
from tests.server.running import RunningServer, running_server

DOCUMENTED_ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def text(project_folder: Path) -> str:
    return (project_folder / "docs" / "serving.md").read_text()


@pytest.fixture(scope="module")
def running(default_model_path: Path) -> Iterator[RunningServer]:
    with running_server() as server:
        yield server


def snippets(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run(program: list[str], **environment: str) -> str:
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_python_snippet_runs(text: str, running: RunningServer) -> None:
    programs = snippets(text, "python")
    outputs = [
        run([sys.executable, "-c", program.replace(DOCUMENTED_ADDRESS, running.address)])
        for program in programs
    ]
    story, person, call, dimensions = (output.strip() for output in outputs)
    assert story
    assert person.startswith("name=")
    assert call.startswith("get_weather {'city': ")
    assert dimensions == "384"


def test_the_curl_snippet_runs(text: str, running: RunningServer) -> None:
    (line,) = [snippet for snippet in snippets(text, "sh") if snippet.startswith("curl ")]
    output = run(["sh", "-c", line.replace(DOCUMENTED_ADDRESS, running.address)])
    assert '"object":"chat.completion"' in output


def test_the_llm_snippets_run(text: str, running: RunningServer, tmp_path: Path) -> None:
    (settings,) = [snippet for snippet in snippets(text, "yaml") if "model_id" in snippet]
    (line,) = [snippet for snippet in snippets(text, "sh") if snippet.startswith("llm ")]
    settings = settings.replace(DOCUMENTED_ADDRESS, running.address)
    (tmp_path / "extra-openai-models.yaml").write_text(settings)
    line = line.replace("llm", f"{sys.executable} -m llm", 1) + " -o max_tokens 10 -o temperature 0"
    keys = {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    assert run(["sh", "-c", line.replace("\n", " ")], **keys).strip()


def test_the_snippets_of_keys_run(text: str, tmp_path: Path) -> None:
    (lines,) = [s for s in snippets(text, "sh") if "keys create laptop" in s]
    lines = lines.replace("oneiros ", f"{sys.executable} -m oneiros ")
    output = run(["sh", "-e", "-c", lines], ONEIROS_HOME=str(tmp_path))
    assert output.count("sk-oneiros-") == 2
    assert "20,000" in output


def test_every_metric_is_documented(text: str) -> None:
    metrics = Metrics()
    metrics.count_scans(ScanCounts(findings={"base64": 1}))
    page = metrics.page({})
    names = {
        line.split()[2].removeprefix("oneiros_")
        for line in page.decode().splitlines()
        if line.startswith("# TYPE ") and not line.split()[2].endswith("_created")
    }
    table = text.partition("## 5. Metrics")[2]
    documented = set(re.findall(r"`([a-z_]+)`", table.partition("Tokens per second")[0]))
    assert names <= documented
    assert documented - names <= {"oneiros_", "model", "endpoint", "status", "kind"}


def test_every_option_of_the_text_exists(text: str) -> None:
    from typer.main import get_command

    from oneiros.cli.app import app

    commands = get_command(app).commands
    options = {
        option
        for name in ("serve", "keys")
        for command in [commands[name], *getattr(commands[name], "commands", {}).values()]
        for parameter in command.params
        for option in parameter.opts
    }
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`(--[a-z-]+)", prose)) <= options
