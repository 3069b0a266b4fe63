"""Questions that a model answers in its own words: arithmetic, spelling, counting letters.

A base model is shown solved examples as a text of lines "Q: ..." and "A: ..."; with a chat format
they are earlier turns of a conversation. The reply is greedy, and right where the answer that is
found in it equals the expected one exactly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from oneiros.evaluation.gauntlet import examples_for
from oneiros.evaluation.items import Item, Reply, Suite
from oneiros.evaluation.records import read_records
from oneiros.evaluation.words import WORDS
from oneiros.model.chat_format import Message

GENERATED_ITEMS = 1000

_CALCULATION = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(r"[-+]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, how it is answered in an example, and the answer itself."""

    text: str
    solution: str
    answer: str


@dataclass(frozen=True, slots=True)
class Style:
    """How the questions of a suite are asked."""

    shots: int
    lead: str  # begins every answer in a text
    read: Callable[[str], str | None]
    max_tokens: int


def final_number(text: str) -> str | None:
    """The number after "####", else the last one; without separators, signs of currency, zeros."""
    _, marked, end = text.rpartition("####")
    found = _NUMBER.findall(end if marked else text)
    if not found:
        return None
    number: str = found[0] if marked else found[-1]
    number = number.replace(",", "").replace("$", "").lstrip("+")
    return number.rstrip("0").rstrip(".") if "." in number else number


def first_number(text: str) -> str | None:
    """The first number of an answer."""
    found = _NUMBER.search(text)
    return None if found is None else found[0].replace(",", "")


def spelt(text: str) -> str | None:
    """The first run of single letters with hyphens, commas or spaces between, such as "c-a-t"."""
    found = re.search(r"(?<![^\W_])[a-z](?:(?:\s*[-,]\s*|\s+)[a-z](?![^\W_]))+", text.lower())
    return None if found is None else "-".join(re.findall("[a-z]", found[0]))


STYLES = {
    "gsm8k": Style(3, "Let's think step by step. ", final_number, 320),
    "spelling": Style(3, "", spelt, 64),
    "counting": Style(3, "", first_number, 32),
}


def question_suite(
    name: str,
    data: Path | None,
    *,
    shots: int | None,
    seed: int,
    choose: Callable[[int], Sequence[int]],
    fixed_shots: bool,
    chat: bool,
) -> Suite:
    """One of STYLES; `data` is needed for gsm8k alone. See `gauntlet.benchmark_suite`.

    Raises EvaluationError where data are missing or malformed.
    """
    style = STYLES[name]
    if name == "gsm8k":
        assert data is not None  # the caller sees to it
        questions = gsm8k(data / "math" / "gsm8k-test.jsonl")
        examples = gsm8k(data / "math" / "gsm8k-train.jsonl")
    else:
        make = spelling if name == "spelling" else counting
        questions = make(Random(f"{seed} {name}"), GENERATED_ITEMS)
        examples = make(Random(f"{seed} {name} examples"), GENERATED_ITEMS)
    count = style.shots if shots is None else shots
    items: dict[int, Item] = {}
    for index in choose(len(questions)):
        key = f"{seed} {name} shots" if fixed_shots else f"{seed} {name} {index}"
        drawn = examples_for(-1, len(examples), count, Random(key))
        shown = [e for i in drawn if (e := examples[i]).text != questions[index].text]
        items[index] = question_item(style, shown, questions[index], chat=chat)
    commonest = Counter(q.answer for q in questions).most_common(1)[0][1]
    # Whoever always says "1" is right in some counts; in gsm8k and spelling this is next to none.
    baseline = commonest / len(questions) if name == "counting" else 0.0
    return Suite(name, count, items, baseline)


def question_item(
    style: Style, examples: Sequence[Question], question: Question, *, chat: bool
) -> Reply:
    """A question with solved examples before it."""
    if chat:
        messages: list[Message] = []
        for example in examples:
            messages.append({"role": "user", "content": example.text})
            messages.append({"role": "assistant", "content": example.solution})
        messages.append({"role": "user", "content": question.text})
        return Reply(tuple(messages), question.answer, style.read, (), style.max_tokens)
    lines = [f"Q: {e.text}\nA: {style.lead}{e.solution}\n" for e in examples]
    prompt = "".join([*lines, f"Q: {question.text}\nA: {style.lead}"]).rstrip()
    return Reply(prompt, question.answer, style.read, ("\n\n", "Q:"), style.max_tokens)


def gsm8k(path: Path) -> list[Question]:
    """Word problems (Cobbe et al. 2021), without the annotations for their calculator."""
    questions = []
    for record in read_records(path, {"question": str, "answer": str}):
        work, _, answer = _CALCULATION.sub("", record["answer"]).partition("####")
        solution = f"{work.strip()} #### {answer.strip()}"
        questions.append(Question(record["question"], solution, final_number(solution) or ""))
    return questions


def spelling(random: Random, count: int) -> list[Question]:
    """Words to be spelt letter by letter, which tokens do not show."""
    questions = []
    for _ in range(count):
        word = random.choice(WORDS)
        letters = "-".join(word)
        text = f'Spell the word "{word}" with a hyphen between its letters.'
        questions.append(Question(text, letters, letters))
    return questions


def counting(random: Random, count: int) -> list[Question]:
    """How often a letter is in a word; it is there once at least in three of four questions."""
    questions = []
    for _ in range(count):
        word = random.choice(WORDS)
        letters = word if random.random() < 0.75 else "abcdefghijklmnopqrstuvwxyz"
        letter = random.choice(letters)
        answer = str(word.count(letter))
        text = f'How many times is the letter "{letter}" in the word "{word}"?'
        questions.append(Question(text, answer, answer))
    return questions
