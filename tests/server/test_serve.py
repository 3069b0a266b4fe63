"""`oneiros serve` and `oneiros keys` as a user meets them: processes, signals, addresses."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.server.running import MODEL, own_home, running_server

ENDLESS = {
    "model": MODEL,
    "prompt": "Once upon a time",
    "max_tokens": 7000,
    "stream": True,
    "logit_bias": {"0": -100, "2": -100},  # what would end it
}
STORY = {**ENDLESS, "max_tokens": 300}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home without keys, with the models of the real one."""
    home = tmp_path / "home"
    home.mkdir()
    return own_home(home)


def oneiros(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "oneiros", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "ONEIROS_HOME": str(home)},
    )


class Reading(threading.Thread):
    """Reads a stream to its end, while the test does something else."""

    def __init__(self, address: str, body: dict) -> None:
        super().__init__(daemon=True)
        self.began = threading.Event()
        self.text = ""
        self.broke = False
        self._url = f"{address}/v1/completions"
        self._body = body
        self.start()

    def run(self) -> None:
        try:
            with httpx.stream("POST", self._url, json=self._body, timeout=60) as response:
                for piece in response.iter_text():
                    self.text += piece
                    self.began.set()
        except httpx.HTTPError:
            self.broke = True


def status_becomes(expected: int, url: str, **options: object) -> httpx.Response:
    """The first answer with a status, to a question that is asked again until it comes."""
    deadline = time.monotonic() + 30
    while (answer := httpx.get(url, **options)).status_code != expected:
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_replies_finish(number: int, home: Path) -> None:
    with running_server(home=home) as server:
        reading = Reading(server.address, STORY)
        assert reading.began.wait(30)
        server.signal(number)
        refused = status_becomes(503, f"{server.address}/v1/models")
        assert refused.json()["error"]["code"] == "shutting_down"
        assert server.wait() == 0
        reading.join(10)
        assert reading.text.endswith("data: [DONE]\n\n")
    assert "Traceback" not in server.log


def test_a_second_signal_ends_at_once(home: Path) -> None:
    with running_server(home=home) as server:
        reading = Reading(server.address, ENDLESS)
        assert reading.began.wait(30)
        server.signal()
        status_becomes(503, f"{server.address}/v1/models")  # it has noticed
        assert server.process.poll() is None
        server.signal()
        assert server.wait(timeout=20) == 130
        reading.join(10)
        assert not reading.is_alive()
        assert "[DONE]" not in reading.text
    assert "Traceback" not in server.log


def test_nothing_is_left_behind(home: Path) -> None:
    with running_server(home=home) as server:
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, text=True
        ).stdout.split()
        assert children
    assert not [pid for pid in children if Path("/proc", pid).exists()]
    assert list((home / "cache" / "spool").iterdir()) == []


def test_log_lines_are_json_if_asked(home: Path) -> None:
    with running_server(home=home) as server:
        httpx.get(f"{server.address}/v1/models")
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("path") == "/v1/models"]
    assert (line["status"], line["principal"], line["level"]) == (200, "local", "info")


def test_keys_let_in_and_are_never_shown_again(home: Path) -> None:
    secret = oneiros("keys", "create", "laptop", "--requests", "100", home=home).stdout.strip()
    assert secret.startswith("sk-oneiros-")
    listed = oneiros("keys", "list", "--json", home=home).stdout
    assert secret not in listed
    (key,) = json.loads(listed)
    assert (key["name"], key["requests_per_minute"], key["priority"]) == (
        "laptop",
        100,
        "interactive",
    )
    assert "laptop" in oneiros("keys", "list", home=home).stdout
    with running_server("--host", "0.0.0.0", home=home) as server:
        assert httpx.get(f"{server.url}/models").status_code == 401
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.get(f"{server.url}/models", headers=headers).status_code == 200
        assert oneiros("keys", "revoke", "laptop", home=home).returncode == 0
        status_becomes(401, f"{server.url}/models", headers=headers)
    again = oneiros("keys", "revoke", "laptop", home=home)
    assert (again.returncode, "no key named" in again.stderr) == (1, True)


def test_other_machines_are_not_served_without_a_key(home: Path) -> None:
    for host in ("0.0.0.0", "::"):
        done = oneiros("serve", "--host", host, home=home)
        assert done.returncode == 1
        assert "oneiros keys create" in done.stderr


def test_wrong_usage_is_told_before_anything_is_loaded(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = oneiros("serve", "--port", port, home=home)
        assert (done.returncode, f"port {port} is in use" in done.stderr) == (1, True)
    for arguments, message in (
        (("--model", "no-such-model"), "no-such-model"),
        (("--model", "all-minilm-l6-v2"), "no language model"),
        (("--model", MODEL, "--model", MODEL), "Two models"),
        (("--embedding-model", "nothing"), "nothing"),
        (("--allowed-origin", "example.org"), "https://"),
        (("--public-system-prompt", "/no/such/file"), "no such file"),
        (("--host", "no.such.host.invalid"), "keys create"),
    ):
        done = oneiros("serve", "--port", "0", *arguments, home=home)
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert oneiros("serve", "--kv-memory", "lots", home=home).returncode == 2


def test_the_printed_line_works(home: Path) -> None:
    command = [sys.executable, "-m", "oneiros", "serve", "--port", "0", "--kv-disk", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "ONEIROS_HOME": str(home)},
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    try:
        line = "".join(lines[2:]).replace("\\\n", "")
        assert line.startswith("curl http://127.0.0.1:")
        # The same short reply every time.
        assert '{"model"' in line
        line = line.replace('{"model"', '{"temperature": 0, "max_tokens": 20, "model"')
        done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60)
        assert json.loads(done.stdout)["choices"][0]["message"]["content"]
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_models_that_do_not_fit_together_take_turns(
    home: Path, tmp_path: Path, default_model_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    other.symlink_to(default_model_path)
    options = ("--model", MODEL, "--model", str(other), "--memory", "900M", "--context", "2048")
    with running_server(*options, home=home) as server:
        assert server.models[:2] == [MODEL, "other"]
        for name in (MODEL, "other", MODEL):
            body = {"model": name, "prompt": "One, two,", "max_tokens": 4, "temperature": 0}
            answer = httpx.post(f"{server.url}/completions", json=body, timeout=60).json()
            assert answer["model"] == name
            assert answer["choices"][0]["text"]
            page = httpx.get(f"{server.address}/metrics").text
            loaded = [n for n in (MODEL, "other") if f'kv_pages_limit{{model="{n}"}}' in page]
            assert loaded == [name]
