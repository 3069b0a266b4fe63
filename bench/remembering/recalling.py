"""Who still knows what was said: our memory, a sliding window, a recursive summary."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load.setting import say
from bench.remembering.facts import Turn, is_told
from bench.remembering.nested import NestedList
from bench.remembering.told import Answer, ask, tell
from oneiros.engine.conversation import Conversation, ConversationOptions
from oneiros.engine.embedding import Embedder
from oneiros.engine.local_conversation import LocalConversation
from oneiros.engine.local_model import LocalModel
from oneiros.engine.replies import Completed
from oneiros.engine.sampling import SamplingOptions
from oneiros.kernel.generating import room
from oneiros.kernel.kernel import Kernel
from oneiros.memory.pages import PageKind
from oneiros.memory.summaries import PIECE, summarize
from oneiros.model.chat_format import Message
from oneiros.server.system import SystemSettings, boot

REPLY = 80  # tokens of an answer
_SYSTEM: Message = {"role": "system", "content": "You are an assistant. Answer briefly."}
_QUESTION = (
    "What is the last value of the key {key}? A value may be a key itself: then its own value has "
    "to be looked up, and so on, until a value is no key. Answer with the last value only."
)
_LOOK_UP = (
    "Never answer at once. Call recall with the key. When that says its value, call recall with "
    "the value, and so on. When recall says no value for what you asked, that is the answer."
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What all of these need."""

    model: LocalModel
    embedder: Callable[[], Embedder]
    folder: Path  # empty


@asynccontextmanager
async def _gone_on(
    setting: Setting, name: str, turns: Sequence[tuple[str, str]], longest: int
) -> AsyncGenerator[tuple[Kernel, int], None]:
    """A system in which a process has heard all of a conversation, and is stopped."""
    folder = setting.folder / name
    pid = await tell(folder, setting.model, setting.embedder, turns, longest)
    settings = SystemSettings(folder=folder, mcp=False)
    async with boot(settings, setting.model, setting.embedder) as system:
        yield system.kernel, pid


async def facts_of_memory(setting: Setting, turns: Sequence[Turn]) -> tuple[float, float]:
    """The share of facts that are answered, and of those that are answered with a citation."""
    said = [(turn.user, turn.assistant) for turn in turns]
    told = [turn.fact for turn in turns if turn.fact]
    right = cited = 0
    async with _gone_on(setting, "facts", said, REPLY) as (kernel, pid):
        state = kernel.state(pid)
        pages = {
            kernel.message(page)["content"]: page.id
            for page in (*state.evicted, *state.pages)
            if page.kind is PageKind.USER
        }
        say(f"  {len(state.evicted):,} of {len(state.evicted) + len(state.pages):,} pages left")
        for fact in told:
            answer = await ask(kernel, pid, fact.question)
            knows = is_told(fact, answer.text)
            right += knows
            # What never left the context needs no quotation to be found.
            here = pages[fact.said] in {page.id for page in state.pages}
            cited += knows and (here or pages[fact.said] in answer.cited)
            if not knows:
                _failure(fact.question, fact.answer, answer)
    return right / len(told), cited / len(told)


async def facts_of_window(setting: Setting, turns: Sequence[Turn]) -> float:
    """The same where the context is a sliding window: the newest turns that fit."""
    messages = _newest(setting.model, turns, [_SYSTEM], room(setting.model.context, REPLY).limit)
    return await _facts_told(setting.model, turns, messages)


async def facts_of_summary(setting: Setting, turns: Sequence[Turn]) -> float:
    """The same where older turns are summarised by the model again and again.

    As Wang et al. 2023, "Recursively Summarizing Enables Long-Term Dialogue Memory in Large
    Language Models": the summary so far and what came after it make the new summary. Half of the
    context has the newest turns as they are.
    """
    model = setting.model
    newest = _newest(model, turns, [], room(model.context, REPLY).limit // 2)
    older = [message for turn in turns for message in _messages(turn)]
    older = older[: len(older) - len(newest)]

    async def write(prompt: str) -> str:
        asked: Message = {"role": "user", "content": prompt}
        text = await _reply(LocalConversation(model, [asked]), min(200, model.context // 8))
        say(f"  notes: {text[:100]!r}")
        return text

    piece = min(PIECE, int(1.5 * model.context))
    notes = await summarize(write, older, piece=piece)
    text = f"{_SYSTEM['content']}\nNotes on what was said before: {notes}"
    return await _facts_told(model, turns, [{"role": "system", "content": text}, *newest])


async def nested_by_memory(setting: Setting, lists: Sequence[NestedList]) -> dict[int, float]:
    """The share of questions that are answered by looking keys up with recall, by level."""
    right: dict[int, int] = dict.fromkeys(lists[0].questions, 0)
    for number, one in enumerate(lists):
        said = [(f"The value of key {key} is {value}.", "Noted.") for key, value in one.pairs]
        async with _gone_on(setting, f"nested-{number}", said, 200) as (kernel, pid):
            for level, (key, value) in one.questions.items():
                answer = await ask(kernel, pid, f"{_QUESTION.format(key=key)} {_LOOK_UP}")
                right[level] += value in answer.text
                if value not in answer.text:
                    _failure(f"level {level}, {key}", value, answer)
        say(f"  after {number + 1} lists: {right}")
    return {level: count / len(lists) for level, count in right.items()}


async def nested_in_context(setting: Setting, lists: Sequence[NestedList]) -> dict[int, float]:
    """The same with the whole list in the context; as long a context as that takes."""
    right: dict[int, int] = dict.fromkeys(lists[0].questions, 0)
    for number, one in enumerate(lists):
        listed = "\n".join(f"The value of key {key} is {value}." for key, value in one.pairs)
        for level, (key, value) in one.questions.items():
            asked: Message = {
                "role": "user",
                "content": f"{listed}\n\n{_QUESTION.format(key=key)}",
            }
            text = await _reply(LocalConversation(setting.model, [_SYSTEM, asked]), 200)
            right[level] += value in text
        say(f"  whole list, after {number + 1} lists: {right}")
    return {level: count / len(lists) for level, count in right.items()}


async def _facts_told(
    model: LocalModel, turns: Sequence[Turn], messages: Sequence[Message]
) -> float:
    told = [turn.fact for turn in turns if turn.fact]
    right = 0
    for fact in told:
        asked: Message = {"role": "user", "content": fact.question}
        text = await _reply(LocalConversation(model, [*messages, asked]), REPLY)
        right += is_told(fact, text)
    return right / len(told)


async def _reply(conversation: Conversation, longest: int) -> str:
    options = ConversationOptions(sampling=SamplingOptions(temperature=0.0, max_tokens=longest))
    async for event in conversation.generate(options):
        if isinstance(event, Completed):
            return event.message["content"]
    raise AssertionError("the last event of a reply is Completed")


def _messages(turn: Turn) -> list[Message]:
    return [
        {"role": "user", "content": turn.user},
        {"role": "assistant", "content": turn.assistant},
    ]


def _newest(
    model: LocalModel, turns: Sequence[Turn], head: list[Message], limit: int
) -> list[Message]:
    """Messages at the head, and the newest turns that fit with them and a question."""
    question = 64  # tokens
    kept: list[Message] = []
    for turn in reversed(turns):
        more = [*_messages(turn), *kept]
        conversation = LocalConversation.resume(model, [*head, *more], {})
        if conversation.prompt_tokens() + question > limit:
            break
        kept = more
    return [*head, *kept]


def _failure(question: str, right: str, answer: Answer) -> None:
    cited = sorted(answer.cited)
    say(f"  {question} {right!r} not in {answer.text[-200:]!r} ({cited}, {answer.rounds} replies)")
