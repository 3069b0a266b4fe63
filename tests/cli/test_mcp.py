"""`oneiros mcp` and `oneiros tools`."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oneiros.cli.app import app
from oneiros.devices.contracts import ContractError
from oneiros.devices.mcp_config import McpConfigError, read_servers
from oneiros.errors import ControlError, OneirosError

PROGRAM = Path(__file__).parent.parent / "devices" / "mcp_misbehaving.py"
Command = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONEIROS_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def oneiros(home: Path) -> Command:
    """Runs a command line in this process; gives what it printed, or raises its error."""

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, arguments, catch_exceptions=code != 0)
        assert done.exit_code == code, done.output
        return done.output

    return run


def test_a_server_is_added_asked_listed_and_removed(home: Path, oneiros: Command) -> None:
    assert "no MCP servers" in oneiros("mcp", "list")
    added = oneiros("mcp", "add", "--env", "T=s", "odd", sys.executable, "-S", str(PROGRAM), "good")
    assert added == "odd_echo\n"
    assert stat.S_IMODE((home / "mcp.json").stat().st_mode) == 0o600
    [row] = json.loads(oneiros("mcp", "list", "--json"))
    assert (row["name"], row["tools"], row["failure"]) == ("odd", ["odd_echo"], None)
    assert "T=s" not in oneiros("mcp", "list") + oneiros("mcp", "list", "--json")
    with pytest.raises(McpConfigError, match="has a server"):
        oneiros("mcp", "add", "--no-check", "odd", "other")
    oneiros("mcp", "remove", "odd")
    with pytest.raises(McpConfigError, match="no server"):
        oneiros("mcp", "remove", "odd")


def test_a_server_that_does_not_work_is_told_when_it_is_added(oneiros: Command) -> None:
    program = (sys.executable, "-S", str(PROGRAM), "does-not-start")
    assert "no licence" in oneiros("mcp", "add", "odd", *program, code=1)
    [row] = json.loads(oneiros("mcp", "list", "--check", "--json"))
    assert "no licence" in row["failure"]
    assert row["tools"] is None


def test_an_address_is_added_with_its_headers(home: Path, oneiros: Command) -> None:
    url = "https://example.org/mcp"
    oneiros("mcp", "add", "--no-check", "--header", "Authorization: Bearer x", "far", url)
    [server] = read_servers(home)
    assert (server.name, server.url) == ("far", url)
    assert server.headers == {"Authorization": "Bearer x"}
    oneiros("mcp", "add", "--no-check", "--env", "A=1", "other", url, code=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "no JSON object"),
        ('{"mcpServers": []}', "no object of servers"),
        ('{"mcpServers": {"a": {}}}', "needs either"),
        ('{"mcpServers": {"a": {"command": "x", "url": "http://y"}}}', "needs either"),
        ('{"mcpServers": {"a": {"command": "x", "args": "y"}}}', "no list of texts"),
        ('{"mcpServers": {"a": {"command": "x", "env": {"y": 1}}}}', "no object of texts"),
        ('{"mcpServers": {"a": {"command": "x\\\\u0000"}}}', "NUL"),
        ('{"mcpServers": {"a": {"url": "file:///etc/passwd"}}}', "no address"),
        ('{"mcpServers": {"\\\\u001b": {"command": "x"}}}', "no name"),
    ],
)
def test_a_malformed_mcp_json_is_told(home: Path, oneiros: Command, text: str, said: str) -> None:
    (home / "mcp.json").write_text(text.replace("\\\\", "\\"))
    with pytest.raises(McpConfigError, match=said):
        oneiros("mcp", "list")


def test_the_shape_that_others_use_is_read_and_what_is_unknown_stays(
    home: Path, oneiros: Command
) -> None:
    entries = {
        "on": {"command": "x", "type": "stdio", "autoApprove": ["y"]},
        "off": {"command": "x", "disabled": True},
    }
    (home / "mcp.json").write_text(json.dumps({"mcpServers": entries, "inputs": []}))
    assert [row["name"] for row in json.loads(oneiros("mcp", "list", "--json"))] == ["on"]
    oneiros("mcp", "add", "--no-check", "new", "y")
    document = json.loads((home / "mcp.json").read_text())
    assert document["mcpServers"]["on"] == entries["on"]
    assert document["inputs"] == []


def test_what_a_tool_may_do_is_shown_said_and_forgotten(home: Path, oneiros: Command) -> None:
    oneiros("mcp", "add", "odd", sys.executable, "-S", str(PROGRAM), "good")
    assert "odd_echo" in oneiros("tools", "list")
    [tool] = json.loads(oneiros("tools", "list", "--json"))
    assert len(tool["effects"]) == 5
    said = oneiros("tools", "contract", "odd_echo", "--effect", "send", "--critical", "text")
    assert "send" in said
    shown = json.loads(oneiros("tools", "contract", "odd_echo", "--deadline", "5", "--json"))
    assert shown["contract"]["effects"] == ["send"]
    assert shown["contract"]["critical"] == ["text"]
    assert shown["contract"]["deadline"] == 5
    [tool] = json.loads(oneiros("tools", "list", "--json"))
    assert tool["effects"] == ["send"]
    with pytest.raises(ContractError, match="no argument whom"):
        oneiros("tools", "contract", "odd_echo", "--critical", "whom")
    assert "read only" in oneiros("tools", "contract", "odd_echo", "--read-only")
    oneiros("tools", "contract", "odd_echo", "--reset")
    assert json.loads((home / "contracts.json").read_text()) == {"contracts": {}}
    with pytest.raises(OneirosError, match="no tool nothing"):
        oneiros("tools", "contract", "nothing")


def test_a_contract_of_a_tool_that_changed_has_to_be_confirmed(
    home: Path, oneiros: Command
) -> None:
    oneiros("mcp", "add", "odd", sys.executable, "-S", str(PROGRAM), "good")
    oneiros("tools", "contract", "odd_echo", "--read-only")
    [listing] = (home / "mcp").iterdir()
    listing.write_text(listing.read_text().replace("Say it again.", "Say it to everybody."))
    shown = json.loads(oneiros("tools", "contract", "odd_echo", "--json"))
    assert len(shown["contract"]["effects"]) == 5
    assert "has changed" in shown["problem"]
    with pytest.raises(OneirosError, match="Nothing was changed"):
        oneiros("tools", "contract", "odd_echo", "--deadline", "5")
    shown = json.loads(oneiros("tools", "contract", "odd_echo", "--confirm", "--json"))
    assert (shown["contract"]["effects"], shown["problem"]) == ([], None)


def test_serving_needs_a_kernel(oneiros: Command) -> None:
    with pytest.raises(ControlError, match="No kernel runs"):
        oneiros("mcp", "serve")
