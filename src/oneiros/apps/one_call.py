"""A program that makes one call: for clients that think for themselves and want a tool.

Its process is titled with the tool's name and gets two messages: one whose label is that of
whoever asks, then the arguments as JSON. The second is never taken into the context, so that it may
be of any length.
"""

from __future__ import annotations

from oneiros.kernel.program import Action, Call, Exit, Receive, ToolRequest, View
from oneiros.memory.pages import PageKind

NAME = "one-call"


class OneCall:
    """Makes the call, and ends with its result."""

    def step(self, view: View) -> Action:
        state = view.state
        results = [page for page in state.pages if page.kind is PageKind.VALUE]
        if results:
            return Exit(result=view.message(results[-1])["content"])
        if not state.inbox:  # whoever asked died before it had asked
            return Exit(result="There was nothing to call.", status="failed")
        if not any(page.kind is PageKind.USER for page in state.pages):
            return Receive()
        arguments = view.text(state.inbox[0].text)
        return Call(requests=(ToolRequest(tool=state.title, arguments=arguments),))
