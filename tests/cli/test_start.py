"""`oneiros` itself: a kernel and a server with a real model, ruled by commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oneiros.kernel.control_client import ControlClient, is_running
from oneiros.model.folders import cache_folder

READY = "(Ctrl-C ends)"


@pytest.fixture
def home(default_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the default model."""
    (tmp_path / "models").symlink_to(default_model_path.parents[1])
    cache_folder().mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache").symlink_to(cache_folder())
    monkeypatch.setenv("ONEIROS_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts `oneiros` with options; gives its process and what it said."""
    started = []

    def run(*options: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "oneiros", "--context", "1024", *options]
        with (home / "stderr").open("a") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        started.append(process)
        said = ""
        assert process.stdout is not None
        while READY not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        return process, said

    yield run
    for process in started:
        process.kill()
        process.wait()


def facts(said: str) -> dict[str, str]:
    lines = (line.split("  ", 1) for line in said.splitlines() if "  " in line)
    return {name: rest.strip() for name, rest in lines}


def finish(client: ControlClient, pid: int) -> None:
    """Wait until a process rests."""
    for view in client.stream("watch", pid=pid, after=0, quiet=0.1):
        if "quiet" in view and client.call("process", pid=pid)["status"] == "waiting":
            return


def test_kernel_and_server_share_a_model_and_processes_outlive_a_kill(
    start: Callable[..., Any], oneiros: Callable[..., Any], refused: Callable[..., str], home: Path
) -> None:
    files = home / "papers"
    kernel, said = start("--port", "0", "--files", str(files))
    told = facts(said)
    assert told["data"] == str(home)
    assert told["files"] == str(files)
    models = httpx.get(f"{told['model API']}/models").json()
    assert "smollm2-135m" in [model["id"] for model in models["data"]]
    assert f"runs on {home} already (pid {kernel.pid})" in refused("--port", "0")

    client = ControlClient(home)
    sampling = {"temperature": 0.0, "max_tokens": 8}
    pid = client.call("start", text="Say hello.", sampling=sampling, capabilities=[])
    finish(client, pid)
    (process,) = json.loads(oneiros("ps", "--json").stdout)
    assert process["title"] == "Say hello."
    assert process["used"]["tokens"] > 0
    assert client.call("replay", pid=pid) == client.call("process", pid=pid)["events"]

    kernel.kill()  # the machine's power, say
    kernel.wait()
    kernel, said = start("--no-server")
    assert "1 go on" in facts(said)["processes"]
    assert facts(said)["model API"] == "none"
    assert client.call("process", pid=pid)["status"] == "waiting"
    kernel.send_signal(signal.SIGINT)
    assert kernel.wait(30) == 0
    assert "Traceback" not in (home / "stderr").read_text()
    assert not is_running(home)


@pytest.mark.long
def test_a_client_can_end_the_server(start: Callable[..., Any], home: Path) -> None:
    kernel, _ = start("--port", "0")
    ControlClient(home).call("shutdown")
    assert kernel.wait(30) == 0
    assert not is_running(home)
