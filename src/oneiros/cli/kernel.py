"""The running kernel, as commands reach it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from oneiros.kernel.control_client import AsyncControlClient, ControlClient

Pid = Annotated[
    int, typer.Argument(metavar="PID", help="As `oneiros ps` shows it.", show_default=False)
]


def client() -> ControlClient:
    """A client of the kernel on the data folder; that none runs is said at the first call."""
    from oneiros.kernel.control_client import ControlClient
    from oneiros.model.folders import data_folder

    return ControlClient(data_folder())


def async_client() -> AsyncControlClient:
    """The same for asyncio."""
    from oneiros.kernel.control_client import AsyncControlClient
    from oneiros.model.folders import data_folder

    return AsyncControlClient(data_folder())
