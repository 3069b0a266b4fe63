"""Conversations: the shapes of lines, who says what, and packing that changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oneiros.errors import TrainingError
from oneiros.model.chat_format import ChatFormat, ChatFormatError, load_chat_format
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import Tokenizer, load_tokenizer
from oneiros.training.conversations import (
    example_of,
    is_set_aside,
    read_conversations,
)
from oneiros.training.finetune import build_learner, finetune_config
from oneiros.training.packing import PackedBatches, PackedRows, pack
from oneiros.training.shards import IGNORED
from oneiros.training.step import Learner, losses, train_step
from oneiros.training.weights import load_model
from tests.training.builders import CPU
from tests.training.chat_builders import TinyChat, examples, talks, tiny_chat, write_lines

ASKED, SAID = "What sleeps?", "The cat."
MESSAGES = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> TinyChat:
    return tiny_chat(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def default_chat(default_model_path: Path) -> tuple[Tokenizer, ChatFormat]:
    parameters = open_parameters(default_model_path)
    tokenizer = load_tokenizer(parameters)
    chat_format = load_chat_format(parameters, tokenizer)
    assert chat_format is not None
    return tokenizer, chat_format


@pytest.mark.parametrize(
    "line",
    [
        {"messages": MESSAGES},
        {"prompt": ASKED, "response": SAID},
        {"prompt": ASKED, "completion": SAID, "id": 7},
        {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}]},
    ],
)
def test_every_shape_is_the_same_conversation(line: dict[str, object], tmp_path: Path) -> None:
    (found,) = read_conversations([write_lines(tmp_path / "one.jsonl", [line])])
    assert [*found.messages] == MESSAGES
    assert found.answer == SAID


def test_system_messages_tools_and_calls_are_read(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": "cat"}'}}
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "It sleeps."},
        {"role": "assistant", "content": "It sleeps.", "reasoning_content": "Said so."},
    ]
    tools = [{"type": "function", "function": {"name": "look"}}]
    lines = [
        {"messages": messages, "tools": tools},
        {"system": "Be short.", "prompt": "a", "response": "b"},
    ]
    first, second = read_conversations([write_lines(tmp_path / "two.jsonl", lines)])
    assert first.messages[2] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert first.messages[4] == messages[4]
    assert first.tools == tuple(tools)
    assert second.messages[0] == {"role": "system", "content": "Be short."}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: is not JSON"),
        ("[]", "line 2: is not an object"),
        ('{"text": "a"}', 'line 2: is no conversation.*but "text"'),
        ('{"prompt": "a", "response": 1}', 'line 2: has no text under "response"'),
        ('{"messages": []}', 'line 2, "messages": is not a list'),
        ('{"messages": [3]}', "line 2.*message 1: is not an object"),
        ('{"messages": [{"role": "judge", "content": "a"}]}', 'message 1: "role" is none of'),
        ('{"messages": [{"role": "user"}]}', 'message 1: has no text under "content"'),
        ('{"messages": [{"role": "user", "content": "a"}]}', "line 2: the assistant says nothing"),
        ('{"conversations": [{"from": "cat", "value": "a"}]}', 'message 1: "from" is none of'),
        ('{"messages": [{"role": "user", "content": "a", "tool_calls": [{}]}]}', "tool_calls"),
    ],
)
def test_bad_lines_are_named(line: str, message: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "talks.jsonl", talks(1))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(TrainingError, match=message):
        [*read_conversations([path])]


def test_what_a_vocabulary_cannot_express_is_named_by_its_line(
    default_chat: tuple[Tokenizer, ChatFormat], tmp_path: Path
) -> None:
    lines = [*talks(1), {"prompt": "\x01 \udc00", "response": "a"}]
    _, bad = read_conversations([write_lines(tmp_path / "talks.jsonl", lines)])
    with pytest.raises(TrainingError, match="line 2: "):
        example_of(bad, default_chat[1])


def test_only_replies_and_their_ends_carry_loss(chat: TinyChat, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "a cat <|im_end|> runs"},
        {"role": "assistant", "content": "to home"},
        {"role": "user", "content": "and then"},
        {"role": "assistant", "content": " sleeps .\n"},
    ]
    (example,) = examples(chat, tmp_path, [{"messages": turns}])
    pieces = np.split(example.ids, np.flatnonzero(np.diff(example.said)) + 1)
    end = chat.tokenizer.added_tokens["<|im_end|>"]
    assert [chat.tokenizer.decode(piece[:-1].tolist()) for piece in pieces[1::2]] == [
        "to home",
        " sleeps .\n",
    ]
    assert [piece[-1] for piece in pieces[1::2]] == [end, end]
    assert example.ids.tolist().count(end) == 4  # what the user wrote is text


@pytest.mark.parametrize("reply", ["Yes.", "\n\nYes", " yes ", ""])
def test_a_prompt_is_tokenised_as_when_the_model_runs(
    default_chat: tuple[Tokenizer, ChatFormat], tmp_path: Path, reply: str
) -> None:
    tokenizer, chat_format = default_chat
    (talk,) = read_conversations(
        [write_lines(tmp_path / "one.jsonl", [{"prompt": "Is it?", "response": reply}])]
    )
    example = example_of(talk, chat_format)
    prompt = chat_format.render(talk.question)
    end = tokenizer.added_tokens["<|im_end|>"]
    assert example.ids.tolist() == [*prompt, *tokenizer.encode(reply), end]
    assert example.said.tolist() == [False] * len(prompt) + [True] * (
        len(example.ids) - len(prompt)
    )


def test_templates_that_do_not_end_replies_are_refused(chat: TinyChat) -> None:
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    with pytest.raises(ChatFormatError, match="does not end message 2"):
        ChatFormat(template, chat.tokenizer).render_turns(MESSAGES)
    changing = "{{ messages | length }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(ChatFormatError, match="message 2, a reply, differently"):
        ChatFormat(changing, chat.tokenizer).render_turns(MESSAGES)


def test_the_same_question_is_always_on_the_same_side(tmp_path: Path) -> None:
    lines = [{"prompt": f"question {i % 200}", "response": str(i)} for i in range(400)]
    found = [*read_conversations([write_lines(tmp_path / "talks.jsonl", lines)])]
    aside = [is_set_aside(talk, 0.2) for talk in found]
    assert aside[:200] == aside[200:]
    assert 20 < sum(aside[:200]) < 60


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 80))
def test_packing_keeps_every_conversation_and_the_length_of_rows(
    lengths: list[int], context: int
) -> None:
    rows = pack(lengths, context)
    assert sorted(index for row in rows for index in row) == [*range(len(lengths))]
    assert all(sum(lengths[index] for index in row) <= context for row in rows)
    # Of two neighbours in best fit, one at least is more than half full.
    assert len(rows) <= max(1, 2 * sum(lengths) / context + 1)


@pytest.fixture
def packed(chat: TinyChat, tmp_path: Path) -> PackedRows:
    rows = PackedRows(examples(chat, tmp_path, talks(12)), 128)
    assert len(rows) < 12
    return rows


def learner(chat: TinyChat, **chosen: object) -> Learner:
    network = load_model(chat.path)
    config = finetune_config(network.config, [60] * 20, context=128, **chosen)
    return build_learner(config, network, CPU)


def test_changing_a_packed_conversation_changes_no_loss_in_its_neighbours(
    chat: TinyChat, packed: PackedRows
) -> None:
    batch = packed.batch([0])
    learning = learner(chat)
    first = batch.documents[0] == 0
    assert batch.documents.max() > 0
    changed = batch.tokens.copy()
    changed[0, first] = (changed[0, first] + 1) % 256
    before = losses(learning, batch)[0]
    after = losses(learning, replace(batch, tokens=changed))[0]
    assert not torch.equal(before[first], after[first])
    assert torch.equal(before[~first], after[~first])


def test_packed_conversations_have_the_losses_that_they_have_alone(
    chat: TinyChat, tmp_path: Path
) -> None:
    some = examples(chat, tmp_path, talks(6))
    learning = learner(chat)
    together = PackedRows(some, 128)
    total = losses(learning, together.batch(range(len(together)))).sum().item()
    alone = [losses(learning, PackedRows([one], 128).batch([0])).sum().item() for one in some]
    assert total == pytest.approx(sum(alone), rel=1e-5)


def test_what_the_user_says_carries_no_loss(chat: TinyChat, tmp_path: Path) -> None:
    (example,) = examples(chat, tmp_path, talks(1))
    batch = PackedRows([example], 128).batch([0])
    found = losses(learner(chat), batch)[0].detach().numpy()
    length = len(example.ids) - 1
    assert (found[:length][~example.said[1:]] == 0).all()
    assert (found[:length][example.said[1:]] > 0).all()
    assert (found[length:] == 0).all()
    assert (batch.targets != IGNORED).sum() == example.targets


def test_an_all_masked_micro_batch_gives_no_nan(chat: TinyChat, packed: PackedRows) -> None:
    batch = packed.batch([0, 1])
    batch.targets[0] = IGNORED
    learning = learner(chat, micro_batch=1, batch=2)
    total = losses(learning, packed.batch([1])).sum().item()
    expected = total / (batch.targets != IGNORED).sum()
    done = train_step(learning, batch, 1.0)
    assert done.applied
    assert done.loss == pytest.approx(expected, rel=1e-5)
    batch.targets[:] = IGNORED
    done = train_step(learning, batch, 1.0)
    assert (done.loss, done.gradient_norm) == (0, 0)
    assert all(torch.isfinite(p).all() for p in learning.network.parameters())


def test_an_epoch_has_every_row_once_and_follows_from_the_seed(
    chat: TinyChat, packed: PackedRows
) -> None:
    count = len(packed)
    rows = [PackedBatches(packed, 1, seed=3).batch(step).tokens[0] for step in range(2 * count)]
    again = [PackedBatches(packed, 1, seed=3).batch(step).tokens[0] for step in range(2 * count)]
    assert np.array_equal(rows, again)
    for epoch in (rows[:count], rows[count:]):
        assert {row.tobytes() for row in epoch} == {
            row.tobytes() for row in packed.batch(range(count)).tokens
        }
