"""Where Oneiros keeps what it fetches and derives.

`ONEIROS_HOME` puts everything under one folder; without it the platform's own places for user data
and caches are used.
"""

import os
from pathlib import Path


def data_folder() -> Path:
    """The folder of what must be kept: models. It may not exist yet."""
    home = os.environ.get("ONEIROS_HOME")
    if home:
        return Path(home).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("oneiros")


def cache_folder() -> Path:
    """The folder of what can be made again: packed weights. It may not exist yet."""
    home = os.environ.get("ONEIROS_HOME")
    if home:
        return Path(home).expanduser().absolute() / "cache"
    from platformdirs import user_cache_path

    return user_cache_path("oneiros")
