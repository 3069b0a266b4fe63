"""Reading streams of events."""

from __future__ import annotations

import json
from typing import Any


def events_of(text: str) -> list[dict[str, Any]]:
    """The JSON of all events of a stream; checks that it is framed and ends as it should."""
    assert text.endswith("data: [DONE]\n\n"), text[-200:]
    frames = text.removesuffix("data: [DONE]\n\n").split("\n\n")
    assert frames.pop() == ""
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]
