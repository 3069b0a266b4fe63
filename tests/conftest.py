"""What every test may ask for: the default models and the data folder. What is missing fails."""

import os
from pathlib import Path

import hypothesis
import pytest

from oneiros.model import catalog

PROJECT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Choose the same inputs on every default run: a change is judged by what it changes.

    The long tests look for new ones.
    """
    looking = "long or not long" in config.getoption("markexpr")
    if not looking and hypothesis.settings.get_current_profile_name() in ("default", "ci"):
        hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
        hypothesis.settings.load_profile("same")


@pytest.fixture(scope="session")
def project_folder() -> Path:
    """The root of the source tree."""
    return PROJECT


@pytest.fixture(scope="session")
def default_model_path() -> Path:
    """The default model's GGUF file, which `make setup` fetches."""
    return catalog.resolve(catalog.DEFAULT_MODEL)


@pytest.fixture(scope="session")
def embedding_model_path() -> Path:
    """The folder of all-MiniLM-L6-v2, which `make setup` fetches."""
    return catalog.resolve("all-minilm-l6-v2")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data to test on: `ONEIROS_DATA`, or ../shared/data."""
    folder = Path(os.environ.get("ONEIROS_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.fail(f"no data folder at {folder}: set ONEIROS_DATA")
    return folder
