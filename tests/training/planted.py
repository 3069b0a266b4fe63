"""A corpus of real text with planted faults, of which each is known."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HANDBOOK = Path(__file__).resolve().parent.parent / "data" / "handbook"

BENCHMARKS = ("boolq", "lambada_openai", "openbook_qa", "piqa", "winogrande")
BENCHMARK_ROWS = 150

EMAILS = [
    "anna.k@posteo.example.de",
    "j_smith+news@mail.corp.com",
    "root@server1.intern.org",
    "O'Neil@uni-ulm.ac.uk",
]
IPS = ["8.8.4.4", "93.184.216.34", "130.149.7.201"]
TELEPHONES = ["+49 30 901820", "(212) 736-5000", "415-867-5309", "+44 20 7946 0018"]
CARDS = ["4539 1488 0343 6467", "5425-2334-3010-9903", "6011111111111117"]
INNOCENT = [
    "version 2.6.32.5 of the kernel was of 2010-01-25",
    "the host 192.168.1.20 and the name user@localhost",
    "ISBN 978-3-16-148410-0 and the order 1234 5678 9012 3456",
    "pages 212-219, 1,000,000 signs and 3.14159 by 2.71828",
    "in 1990-1995 it was 50 + 25 = 75",
]


PLACES = ["Home", "About", "Contact", "News", "Shop", "Login", "Basket", "Help", "Imprint", "Jobs"]
GOODS = ["chair", "table", "lamp", "shelf", "sofa", "mirror", "carpet", "vase", "clock", "desk"]


@dataclass(frozen=True, slots=True)
class Planted:
    """A document of the corpus."""

    kind: str  # "good", or the fault
    text: str
    about: str = ""  # of a copy: its original; of personal data: the data


def handbook_texts() -> list[tuple[str, str]]:
    """(language, passage) of the handbook."""
    return [(row["language"], row["text"]) for row in _rows("texts.jsonl.gz")]


def handbook_pages() -> list[tuple[str, str, str]]:
    """(name, language, HTML) of the handbook."""
    return [(row["name"], row["language"], row["html"]) for row in _rows("pages.jsonl.gz")]


def write_benchmarks(data_folder: Path, folder: Path) -> Path:
    """The beginnings of real benchmarks."""
    folder.mkdir()
    for name in BENCHMARKS:
        lines = (data_folder / "benchmarks" / f"{name}.jsonl").read_text().splitlines(True)
        (folder / f"{name}.jsonl").write_text("".join(lines[:BENCHMARK_ROWS]))
    return folder


def planted_corpus(data_folder: Path, benchmarks: Path) -> list[Planted]:
    """About 600 documents in a random order: 150 good ones, and every fault among them."""
    chance = random.Random(0)
    texts = handbook_texts()
    prose = [text for language, text in texts if language == "en" and _is_prose(text)]
    english = prose + _answers(data_folder)
    chance.shuffle(english)
    good, hosts = english[:150], iter(english[150:])
    items = _items(benchmarks)
    chance.shuffle(items)
    corpus = [Planted("good", text) for text in good]
    corpus += [Planted("language", text) for language, text in texts if language != "en"]
    corpus += [Planted("duplicate", _copied(text, chance), text) for text in good[:50]]
    corpus += [
        Planted("halves", _half(one, 0) + "\n" + _half(other, 1))
        for one, other in zip(good[50:70], good[70:90], strict=True)
    ]
    corpus += [Planted("boilerplate", text) for text in _boilerplate(chance)]
    corpus += [
        Planted("contamination", _inserted(next(hosts), _disguised(item), chance))
        for item in items[:50]
    ]
    for secrets in (EMAILS, IPS, TELEPHONES, CARDS):
        corpus += [
            Planted("pii", _inserted(next(hosts), f"Write to {secret}, please.", chance), secret)
            for secret in secrets
        ]
    corpus += [
        Planted("innocent", _inserted(next(hosts), f"It was {text}.", chance), text)
        for text in INNOCENT
    ]
    chance.shuffle(corpus)
    # A copy stands after its original: of the two, the first is kept.
    return sorted(corpus, key=lambda planted: planted.kind == "duplicate")


def write_corpus(corpus: list[Planted], path: Path) -> Path:
    """As JSON Lines: line n is document n - 1."""
    path.write_text("".join(json.dumps({"text": one.text}) + "\n" for one in corpus))
    return path


def _rows(name: str) -> Iterator[dict[str, str]]:
    with gzip.open(HANDBOOK / name, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _answers(data_folder: Path) -> list[str]:
    """Longer answers of Dolly: prose by many people about many things."""
    path = data_folder / "conversations" / "dolly-hhrlhf-small.jsonl"
    answers = [json.loads(line)["response"].strip() for line in path.read_text().splitlines()]
    return [
        text
        for text in answers
        if 400 < len(text) < 2000 and text.count(". ") > 4 and text.count("\n") < 5
    ]


def _items(benchmarks: Path) -> list[str]:
    """What a benchmark asks, as a web page might have it; 15 words at least."""
    items = []
    for path in sorted(benchmarks.glob("*.jsonl")):
        for line in path.read_text().splitlines()[:40]:
            row = json.loads(line)
            text = row.get("context") or row.get("query") or row["context_options"][0]
            text = text.removeprefix("Question: ").removeprefix("Passage: ")
            if len(text.split()) >= 15:
                items.append(" ".join(text.split()[:40]))
    return items


def _disguised(text: str) -> str:
    """The same words in other signs."""
    return text.upper().replace(",", "").replace(".", " --")


def _copied(text: str, chance: random.Random) -> str:
    """A near-copy: one word in sixty is another, and there is a line around it."""
    words = text.split(" ")
    for place in chance.sample(range(len(words)), max(1, len(words) // 60)):
        words[place] = "something"
    return "Posted again by the editors.\n" + " ".join(words)


def _is_prose(text: str) -> bool:
    """Whether a passage of the handbook has no listing in it."""
    signs = sum(sign in "/$#|=<>{}[]_~+*\\" for sign in text)
    return all(line[-1] in ".:;!?" for line in text.split("\n")) and signs < len(text) / 100


def _half(text: str, which: int) -> str:
    words = text.split(" ")
    middle = len(words) // 2
    return " ".join(words[middle:] if which else words[:middle])


def _inserted(host: str, text: str, chance: random.Random) -> str:
    """A text between two sentences of another."""
    sentences = host.split(". ")
    place = chance.randrange(1, len(sentences))
    return ". ".join([*sentences[:place], text, *sentences[place:]])


def _boilerplate(chance: random.Random) -> Iterator[str]:
    """What is on pages beside their text."""
    for number in range(8):
        yield "\n".join(chance.choices(PLACES, k=80))
        yield "\n".join(
            f"{chance.choice(GOODS).title()} {chance.randint(10, 99)} cm - "
            f"{chance.randint(10, 999)},00 EUR - add to basket"
            for _ in range(40)
        )
        yield f"We value your privacy {number}. " * 40
        yield "\n".join("• " + " ".join(chance.choices(GOODS, k=4)) for _ in range(30))
        yield (
            "Lorem ipsum dolor sit amet, and this is the text of the page to be. "
            + " ".join(chance.choices(GOODS, k=60))
            + ". It is to be written with the help of the people who have that. "
        ) + "More of it is to come. Wait for it. Then it is there. Come again."
        yield (
            "This site uses cookies.\nRead our privacy policy and the terms of use.\n"
            + "\n".join(f"Follow us on {name} and like us today!" for name in GOODS)
            + "\nAll rights reserved by the owners and with their partners "
            + " ".join(chance.choices(GOODS, k=20))
        )
        yield " | ".join(f"{chance.randint(1, 31)}.{chance.randint(1, 12)}." for _ in range(90))
        yield f"function f{number}() {{ return {{ the: 'and', of: 'to' }}; }}\n" * 12
