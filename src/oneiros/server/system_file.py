"""`oneiros.toml` in the data folder: what of a system a person sets up once.

files = "~/Documents/oneiros"            # what processes work with
searxng = "http://127.0.0.1:8888"        # who searches the web

[models.large]                           # another model: processes may ask it, or think with it
url = "https://models.example/v1"
model = "llama-3.3-70b"                  # its name there; default: the one above
key = "EXAMPLE_API_KEY"                  # the environment variable with its key
about = "Good at long texts."            # for the models that choose whom to ask
price = { prompt = 0.5, reply = 1.5 }    # US dollars for a million tokens

[apps.assistant]                         # a program for processes
egress = ["example.org", "*.example.net"]  # what it may reach; default: every public host
grants = ["delete_file"]                   # tools whose effects it may have unasked
quarantine = true                          # what others wrote stays behind handles
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oneiros.devices.egress import SYSTEM_FILE
from oneiros.devices.models import OtherModel, Price
from oneiros.engine.remote_model import RemoteModel
from oneiros.errors import OneirosError
from oneiros.kernel.spec import AppRules
from oneiros.server.system import SystemSettings

NAME = SYSTEM_FILE
# "*", "example.org", "*.example.org", "127.0.0.1:8080", "[::1]:8080"
_SITE = r"^(\*|(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*(:\d+)?|\[[0-9a-f:.]+\]:\d+)$"


class SystemFileError(OneirosError):
    """The file is malformed; the message says where."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Price(_Part):
    prompt: float = 0.0
    reply: float = 0.0


class _Model(_Part):
    url: str
    model: str | None = None
    key: str | None = None
    about: str = ""
    price: _Price | None = None


class _App(_Part):
    egress: list[Annotated[str, Field(pattern=_SITE)]] | None = None  # read by `egress.SiteList`
    grants: list[str] = []
    quarantine: bool = False


class _File(_Part):
    files: str | None = None
    searxng: str | None = None
    models: dict[str, _Model] = {}
    apps: dict[str, _App] = {}


def read_system_file(folder: Path) -> SystemSettings:
    """The settings of a data folder; the defaults, where it has no file.

    Raises:
        SystemFileError: the file is malformed, or names something that is not known.
    """
    path = folder / NAME
    try:
        found = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        found = _File()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SystemFileError(f"{path}: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SystemFileError(f"{path}: {place}: {first['msg']}.") from error
    return SystemSettings(
        folder=folder,
        files=None if found.files is None else Path(found.files).expanduser().absolute(),
        searxng=found.searxng,
        others=tuple(_other(name, model) for name, model in found.models.items()),
        apps={
            name: AppRules(grants=frozenset(app.grants), quarantine=app.quarantine)
            for name, app in found.apps.items()
        },
    )


def _other(name: str, model: _Model) -> OtherModel:
    price = None if model.price is None else Price(**model.price.model_dump())
    remote = RemoteModel(model.url, model.model or name, api_key_variable=model.key)
    return OtherModel(name=name, model=remote, about=model.about, price=price)
