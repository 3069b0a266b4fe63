"""What a person sets up once in oneiros.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from oneiros.kernel.spec import AppRules
from oneiros.server.system_file import SystemFileError, read_system_file


def test_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_system_file(tmp_path).others == ()
    monkeypatch.setenv("EXAMPLE_API_KEY", "secret")
    (tmp_path / "oneiros.toml").write_text(
        """
        files = "/srv/files"
        searxng = "http://127.0.0.1:8888"
        [models.large]
        url = "https://models.example/v1"
        model = "llama-3.3-70b"
        key = "EXAMPLE_API_KEY"
        price = { prompt = 0.5, reply = 1.5 }
        [apps."mcp:tracker"]
        egress = ["*", "*.example.org", "wiki.local:8080", "[::1]:80"]
        [apps.mailer]
        grants = ["send_mail"]
        quarantine = true
        """
    )
    settings = read_system_file(tmp_path)
    assert settings.files == Path("/srv/files")
    assert settings.searxng == "http://127.0.0.1:8888"
    assert settings.apps["mailer"] == AppRules(grants=frozenset({"send_mail"}), quarantine=True)
    assert settings.apps["mcp:tracker"] == AppRules()
    (large,) = settings.others
    assert (large.name, large.model.name) == ("large", "llama-3.3-70b")
    assert large.price is not None and large.price.of(1_000_000, 1_000_000) == 2.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("files = ", "oneiros.toml"),
        ("colour = 1", "colour"),
        ("files = 3", "files"),
        ("[models.a]\nurl = 1", "models.a.url"),
        ('[apps.a]\negress = ["https://example.org"]', r"apps\.a\.egress\.0"),
        ("[apps.a]\negres = []", "egres"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "oneiros.toml").write_text(text)
    with pytest.raises(SystemFileError, match=said):
        read_system_file(tmp_path)
