"""`oneiros logs`: a process's journal."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import kernel, options, output

EXAMPLE = "oneiros logs 3 --follow"

if TYPE_CHECKING:
    from oneiros.cli.event_lines import View


def command(
    pid: kernel.Pid,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new events as they come.")
    ] = False,
    after: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Only events after this one.")
    ] = 0,
    json: options.Json = False,
) -> None:
    """Show the events of a process: all that ever happened to it.

    What detectors see in results from outside stands below them; nothing was decided by it. With
    --json each event is a line of JSON, with its texts.
    """
    from oneiros.cli.event_lines import event_line

    client = kernel.client()
    last = client.call("process", pid=pid)["events"]
    if not follow and after >= last:
        return
    with closing(client.stream("watch", pid=pid, after=after, longest=1 << 20)) as events:
        for view in events:
            seen = _seen(view)
            if json:
                output.write_json_line({**view, "findings": seen} if seen else view)
            else:
                output.say(event_line(view))
                if seen:
                    kinds = ", ".join(f"{kind} {count}" for kind, count in seen.items())
                    output.say(f"{'':>6} seen by detectors: {kinds}")
            if view["event"]["kind"] == "ended" or (not follow and view["seq"] >= last):
                return


def _seen(view: View) -> dict[str, int]:
    """What detectors find in the result of a call that has untrusted origins, by kind."""
    from oneiros.cli.event_lines import content
    from oneiros.detection.detect import detect
    from oneiros.detection.findings import counted
    from oneiros.kernel.label import is_trusted

    event = view["event"]
    if event["kind"] != "call-ended":
        return {}
    label = event["own"] or event["page"]["label"]
    if all(map(is_trusted, label["origins"])):
        return {}
    whole = view["texts"].get(event["held"]) or content(view, event["page"])
    return counted(detect(whole))
