"""A process's replies: room made for them, generated in turn, journalled in pieces."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from oneiros.engine.conversation import Conversation, ConversationOptions
from oneiros.engine.replies import Completed, TextDelta
from oneiros.engine.requests import BACKGROUND, INTERACTIVE, Usage
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import ContextLengthError, OneirosError
from oneiros.kernel import events as e
from oneiros.kernel.budgets import LAST_SECONDS, LAST_WORDS
from oneiros.kernel.decisions import thinking
from oneiros.kernel.label import Label, join_all
from oneiros.kernel.program import ACTION, Generate
from oneiros.kernel.state import Generation
from oneiros.kernel.verdict import Allow, Ask, Deny
from oneiros.memory.context import (
    SAID,
    ContextBudget,
    mark_text,
    plan_eviction,
    stands_for,
    summary_in,
)
from oneiros.memory.pages import Page, PageKind
from oneiros.model.answer_calls import ANSWER, ANSWER_NAME
from oneiros.model.chat_format import GeneratedReply, Message

if TYPE_CHECKING:
    from oneiros.kernel.process import Process

_RESERVE_SHARE = 0.25  # of the context, kept for the reply
_LONGEST_RESERVE = 1024  # tokens
_LONGEST_REPLY = 2048  # tokens, where nobody says
MARKUP = 5  # tokens that templates put around a message, about
_WATCHED_PIECE = 0.1  # seconds between the pieces of a reply that somebody watches
_PIECE = 1.0


@dataclass(slots=True)
class Talk:
    """The conversation of a process, as it was left after the last reply."""

    conversation: Conversation | None = None
    pages: tuple[int, ...] = ()
    cached: int = 0  # tokens of its beginning that need not be computed again
    overhead: int | None = None  # tokens of its prompt beside the pages: tools, the template's


@dataclass(frozen=True, slots=True)
class _Reply:
    message: Message | None
    ids: GeneratedReply | None
    reason: str
    usage: Usage
    error: str | None = None


def room(context: int, longest_reply: int | None = None) -> ContextBudget:
    """How the tokens of a context are shared out."""
    reserve = min(int(context * _RESERVE_SHARE), longest_reply or _LONGEST_RESERVE)
    return ContextBudget(context=context, reserve=reserve)


async def generate(process: Process, action: Generate) -> None:
    """Have the model answer the context."""
    before = len(process.state.evicted)
    conversation = _with_room(process, action)
    if len(process.state.evicted) > before and await _remind_again(process):
        conversation = _with_room(process, action)
    options = process.put(ACTION.dump_json(action).decode())
    prompt_tokens = conversation.prompt_tokens(_tools(process, action))
    seed, limit = secrets.randbits(32), _limit(process, action, prompt_tokens)
    process.append(e.GenerationStarted(seed=seed, options=options, limit=limit))
    await _carry_out(process, action, conversation)


async def resume(process: Process) -> None:
    """Generate a reply again that was under way when the process was stopped.

    The seed is the same: a model of this machine says the same, token for token.
    """
    generation = process.state.generation
    assert generation is not None  # there is something to resume
    action = ACTION.validate_json(process.services.texts.text(generation.options))
    assert isinstance(action, Generate)  # nothing else is journalled there
    limit = min(generation.limit, _limit(process, action, 0))  # less is left, if it was stopped
    if generation.pieces or limit < generation.limit:  # those who watch begin anew
        process.append(
            e.GenerationStarted(seed=generation.seed, options=generation.options, limit=limit)
        )
    await _carry_out(process, action, _with_room(process, action))


async def remind(process: Process, text: str) -> bool:
    """Quote what left the context and bears on a message; whether anything did."""
    found = await asyncio.to_thread(process.services.memory.relevant, process.state, text)
    if found is None or process.state.end is not None:
        return False
    message: Message = {"role": "user", "content": found.text}
    page = process.page(PageKind.RECALLED, message, found.label, stands_for=found.pages)
    process.append(e.Noticed(page=page))
    return True


async def _remind_again(process: Process) -> bool:
    """The same for what left only now, to make room for the answer to a new message."""
    for page in reversed(process.state.context):
        if page.kind is PageKind.USER:
            return await remind(process, process.services.texts.message(page)["content"])
        if page.kind is not PageKind.RECALLED:
            break
    return False


async def _carry_out(process: Process, action: Generate, conversation: Conversation) -> None:
    generation = process.state.generation
    assert generation is not None  # it has begun
    scheduler, interruptions = process.services.scheduler, process.interruptions
    async with scheduler.turn(process.pid, process.state.priority) as turn:
        began = time.monotonic()
        if process.state.stopped or process.state.end is not None:
            return
        refused = _refused(process)
        if process.interruptions > interruptions:  # while it waited for its turn
            reply = _Reply(None, None, "interrupted", Usage())
        elif refused is None:
            if process.talk.conversation is not conversation:  # reniced, or of another model now
                conversation = _with_room(process, action)
                prompt_tokens = conversation.prompt_tokens(_tools(process, action))
                limit = min(generation.limit, _limit(process, action, prompt_tokens))
                generation = replace(generation, limit=limit)
            reply = await _reply(process, conversation, _options(process, action, generation))
        else:
            reply = _Reply(None, None, "failed", Usage(), refused)
        turn.tokens = reply.usage.computed_tokens
    used = e.Used(
        tokens=reply.usage.computed_tokens,
        seconds=time.monotonic() - began,
        money=process.services.models.cost(process.state.model, reply.usage),
    )
    if reply.message is None:
        process.talk = Talk()  # what its conversation has read is not known
    if process.state.stopped:
        process.talk = Talk()
        process.append(e.Charged(used=used))
        return  # the reply is generated again when the process goes on
    _end(process, reply, used)


def _refused(process: Process) -> str | None:
    """Why the model may not read the context; None: it may."""
    origin = process.services.models.origin(process.state.model)
    if origin is None:
        return None
    match thinking(origin, process.state, process.services.texts):
        case Allow():
            return None
        case Ask(question=why) | Deny(reason=why):
            return why


def _with_room(process: Process, action: Generate) -> Conversation:
    """The conversation with what is in the context, after evictions that make room for a reply."""
    budget = room(process.services.models.context(process.state.model), action.max_tokens)
    tools = _tools(process, action)
    while True:
        conversation = _conversation(process)
        used = conversation.prompt_tokens(tools)
        pages = sum(page.tokens for page in process.state.context)
        process.talk = replace(process.talk, overhead=max(0, used - pages))
        gone = plan_eviction(process.state.context, used, budget)
        if not gone:
            return conversation
        _evict(process, gone)


def _conversation(process: Process) -> Conversation:
    """The conversation with what is in the context; the one of the last reply, continued."""
    state, texts, talk = process.state, process.services.texts, process.talk
    pages = state.context
    ids = tuple(page.id for page in pages)
    known = len(talk.pages)
    conversation = talk.conversation if ids[:known] == talk.pages else None
    if conversation is not None:
        try:
            for page in pages[known:]:
                conversation.append(_message(process, page))
        except ContextLengthError:
            conversation = None  # it has to be counted all the same
    if conversation is None:
        replies = {n: reply for n, page in enumerate(pages) if (reply := texts.reply(page))}
        conversation = process.services.models.conversation(
            state.model,
            [_message(process, page) for page in pages],
            replies,
            owner=state.owner,
            priority=INTERACTIVE if state.priority <= 0 else BACKGROUND,
        )
        talk = Talk()
    process.talk = Talk(conversation, ids, talk.cached)
    return conversation


def _message(process: Process, page: Page) -> Message:
    """A page's message, as the model can read it."""
    message: Message = _expressible(process, process.services.texts.message(page))
    return message


def _expressible(process: Process, value: Any) -> Any:
    """JSON-like data whose texts the model's vocabulary has."""
    match value:
        case str():
            return process.services.models.expressible(process.state.model, value)
        case Mapping():
            pairs = value.items()
            return {_expressible(process, k): _expressible(process, v) for k, v in pairs}
        case list() | tuple():
            return [_expressible(process, one) for one in value]
    return value


def _evict(process: Process, gone: tuple[int, ...]) -> None:
    state, memory = process.state, process.services.memory
    pages = [page for page in state.context if page.id in gone]
    summary = None
    for page in pages:
        text = process.services.texts.message(page)["content"]
        summary = summary_in(page.kind, text) or summary
        if page.kind in SAID:
            memory.evicted(state, page, text)
    message: Message = {"role": "user", "content": mark_text(pages, summary)}
    label = join_all(page.label for page in pages)
    mark = process.page(PageKind.MARK, message, label, stands_for=stands_for(pages))
    process.append(e.Evicted(pages=gone, mark=mark))


def _tools(process: Process, action: Generate) -> tuple[Mapping[str, object], ...]:
    if action.tool_choice == "none":
        return ()
    offered = {ANSWER_NAME: ANSWER} | {tool.name: tool.openai() for tool in process.texts.tools}
    return tuple(_expressible(process, offered[name]) for name in action.tools if name in offered)


def _limit(process: Process, action: Generate, prompt_tokens: int) -> int:
    """Tokens that the reply may take: what the budget has left when the prompt is read."""
    limit = action.max_tokens or _sampling(process).max_tokens or _LONGEST_REPLY
    state, budget, used = process.state, process.state.budget, process.state.used
    if state.last_steps:
        return min(limit, LAST_WORDS)
    if budget.tokens is not None:
        read = max(0, prompt_tokens - process.talk.cached)
        limit = min(limit, budget.tokens - used.tokens - read)
    if budget.money is not None:
        left = budget.money - used.money
        paid = process.services.models.affordable(state.model, left, prompt_tokens)
        limit = limit if paid is None else min(limit, paid)
    return max(1, limit)


def _sampling(process: Process) -> SamplingOptions:
    blob = process.state.sampling
    if blob is None:
        return SamplingOptions()
    data = json.loads(process.services.texts.text(blob))
    bias = {int(token): value for token, value in data.pop("logit_bias", {}).items()}
    return SamplingOptions(**data | {"logit_bias": bias, "stop": tuple(data.get("stop", ()))})


def _options(process: Process, action: Generate, generation: Generation) -> ConversationOptions:
    sampling = replace(_sampling(process), seed=generation.seed, max_tokens=generation.limit)
    if action.temperature is not None:
        sampling = replace(sampling, temperature=action.temperature)
    tools = _tools(process, action)
    budget = process.state.budget.seconds
    least = LAST_SECONDS if process.state.last_steps else 0.01
    return ConversationOptions(
        sampling=sampling,
        tools=tools,
        tool_choice=action.tool_choice if tools else "auto",
        parallel_tool_calls=action.parallel,
        response_schema=None if action.schema is None else json.loads(action.schema),
        timeout=None if budget is None else max(least, budget - process.state.used.seconds),
    )


async def _reply(
    process: Process, conversation: Conversation, options: ConversationOptions
) -> _Reply:
    """Generate, journalling what comes in pieces; whoever interrupts gets what was said so far."""
    place = len(conversation.messages)
    prompt_tokens = conversation.prompt_tokens(options.offered_tools)
    pieces = _Pieces(process)
    completed: Completed | None = None

    async def listen() -> None:
        nonlocal completed
        async with aclosing(conversation.generate(options)) as generated:
            async for event in generated:
                if isinstance(event, Completed):
                    completed = event
                elif isinstance(event, TextDelta):
                    pieces.add(event.text)

    error = None
    try:
        await process.attend(listen())
    except OneirosError as failure:
        error = str(failure)
    usage = Usage()
    if completed:
        usage = completed.usage
    elif pieces.count:  # the prompt was read, and so much was said: about, as nobody counted
        usage = Usage(prompt_tokens, min(prompt_tokens, process.talk.cached), pieces.count)
    said = conversation.messages[place:]
    if error is not None or not said:
        return _Reply(None, None, "interrupted" if error is None else "failed", usage, error)
    reason = completed.reason if completed else "interrupted"
    return _Reply(said[-1], conversation.reply(place), reason, usage)


class _Pieces:
    """A reply's text, journalled from time to time: often, if somebody watches."""

    def __init__(self, process: Process) -> None:
        self.count = 0  # deltas; about as many as tokens
        self._process = process
        self._text: list[str] = []
        self._last = 0.0  # the first piece is told at once

    def add(self, text: str) -> None:
        self.count += 1
        self._text.append(text)
        watched = self._process.services.watched(self._process.pid)
        if time.monotonic() - self._last >= (_WATCHED_PIECE if watched else _PIECE):
            text = self._process.put("".join(self._text))
            self._process.append(e.Generated(text=text, tokens=len(self._text)))
            self._text.clear()
            self._last = time.monotonic()


def _end(process: Process, reply: _Reply, used: e.Used) -> None:
    state, models, usage = process.state, process.services.models, reply.usage
    page = None
    if reply.message is not None:
        origin = models.origin(state.model)
        label = state.label.join(Label.of(*([origin] if origin else ())))
        page = process.page(PageKind.ASSISTANT, reply.message, label)
        ids = None
        if reply.ids is not None:
            ids = process.put_json({"text": reply.ids.text, "ids": list(reply.ids.ids)})
        calls = len(reply.message.get("tool_calls", ()))
        tokens = usage.generated_tokens + MARKUP if reply.ids else page.tokens
        page = replace(page, reply=ids, calls=calls, tokens=tokens)
        # Another machine says what it had cached, and does not promise to keep it.
        read = usage.prompt_tokens + usage.generated_tokens
        process.talk = replace(
            process.talk,
            pages=(*process.talk.pages, page.id),
            cached=read if origin is None else usage.cached_tokens,
        )
    process.append(
        e.GenerationEnded(
            page=page,
            reason=reply.reason,
            used=used,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            error=None if reply.error is None else process.put(reply.error),
        )
    )
