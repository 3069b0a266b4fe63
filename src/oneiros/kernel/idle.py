"""What a process's model does while nobody wants anything of the process: it sums up.

What left the context is not gone, only not at hand; a summary of it is. It is a page of its own and
takes nothing's place.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from oneiros.engine.conversation import ConversationOptions
from oneiros.engine.replies import Completed, TextDelta
from oneiros.engine.requests import BACKGROUND
from oneiros.engine.sampling import SamplingOptions
from oneiros.kernel import events as e
from oneiros.kernel.label import join_all
from oneiros.memory.context import SAID
from oneiros.memory.pages import PageKind
from oneiros.memory.summaries import PIECE, summarize
from oneiros.model.chat_format import Message

if TYPE_CHECKING:
    from oneiros.kernel.process import Process

QUIET = 2.0  # seconds without anything to do, after which a process is idle
_LOW = 5  # priority
_LONGEST = 256  # tokens of one part of a summary


def unsummarized(process: Process) -> tuple[int, ...]:
    """Pages that left the context and that no summary speaks of."""
    state = process.state
    pages = (*state.evicted, *state.pages)
    told = {n for page in pages if page.kind is PageKind.SUMMARY for n in page.stands_for}
    return tuple(page.id for page in state.evicted if page.kind in SAID and page.id not in told)


async def sum_up(process: Process) -> None:
    """Write a summary of what left the context and is in none yet. May be cancelled at any time."""
    state, services = process.state, process.services
    new = set(unsummarized(process))
    pages = [page for page in state.evicted if page.id in new]
    everything = (*state.evicted, *state.pages)
    earlier = [page for page in everything if page.kind is PageKind.SUMMARY]
    previous = services.texts.message(earlier[-1])["content"] if earlier else None
    computed = 0
    began = time.monotonic()

    def used() -> e.Used:
        return e.Used(tokens=computed, seconds=time.monotonic() - began)

    async def write(prompt: str) -> str:
        nonlocal computed
        prompt = services.models.expressible(state.model, prompt)
        asked: Message = {"role": "user", "content": prompt}
        conversation = services.models.conversation(
            state.model, [asked], {}, owner=state.owner, priority=BACKGROUND
        )
        options = ConversationOptions(
            sampling=SamplingOptions(temperature=0.0, max_tokens=_LONGEST)
        )
        text = ""
        async with services.scheduler.turn(process.pid, _LOW, steady=True) as turn:
            try:
                async with aclosing(conversation.generate(options)) as generated:
                    async for event in generated:
                        if isinstance(event, Completed):
                            text = event.message["content"]
                            turn.tokens = event.usage.computed_tokens
                        elif isinstance(event, TextDelta):  # a token, about
                            turn.tokens = (turn.tokens or conversation.prompt_tokens()) + 1
            finally:
                computed += turn.tokens
        return text

    messages = [services.texts.message(page) for page in pages]
    piece = min(PIECE, int(1.5 * services.models.context(state.model)))
    summary = None
    try:
        summary = await summarize(write, messages, previous, piece=piece)
    finally:
        if summary is None and computed and process.state.end is None:
            process.append(e.Charged(used=used()))
    if summary is None:
        return
    told = tuple(sorted(new.union(*(page.stands_for for page in earlier))))
    message: Message = {
        "role": "user",
        "content": f"[Notes on messages {told[0]} to {told[-1]}, which left this context: "
        f"{summary}]",
    }
    label = join_all(page.label for page in (*pages, *earlier))
    page = process.page(PageKind.SUMMARY, message, label, stands_for=told)
    process.append(e.Noticed(page=page, used=used()))
