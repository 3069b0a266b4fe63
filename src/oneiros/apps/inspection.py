"""A program that answers one question about a text, and does nothing else.

Its process has no capabilities. What it reads are the pages that it begins with; the schema of its
answer is the first message of its inbox, which never comes into the context.
"""

from __future__ import annotations

import json

from oneiros.kernel.program import Action, Exit, Generate, View
from oneiros.kernel.quarantine import longest_reply
from oneiros.memory.pages import PageKind


class Inspection:
    """Has the model answer, and ends with that."""

    def step(self, view: View) -> Action:
        state = view.state
        said = [page for page in state.context if page.kind is PageKind.ASSISTANT]
        if said:
            return Exit(result=view.message(said[-1])["content"])
        if state.failures or not state.inbox:
            return Exit(result="No answer was generated.", status="failed")
        schema = view.text(state.inbox[0].text)
        return Generate(schema=schema, max_tokens=longest_reply(json.loads(schema)))
