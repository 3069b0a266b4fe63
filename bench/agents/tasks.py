"""The 20 tasks: calculator, files, python, search and local pages, each checked by its effect."""

from __future__ import annotations

import random

from bench.agents.task import Task

_CONTACTS = (
    "Anna Berg, +47 21 30 44 10, Oslo\nMaria Lopez, +34 910 55 71 28, Madrid\n"
    "Tom Fisher, +44 20 7946 0812, London\nYuki Tanaka, +81 3 5550 1926, Tokyo\n"
)
_POEM = "The lamps are lit along the quay,\nthe tide is coming in,\nand all the boats are home.\n"
_INI = "[server]\nhost = 0.0.0.0\nport = 8080\nworkers = 4\n\n[log]\nlevel = info\n"
_NAMES = ["Quentin", "Beatrix", "Oswald", "Adele", "Magnus", "Tilda", "Casper"]
_SPEECH = (
    "Friends, the harbour is ours. We built the harbour with our hands, and the harbour fed us. "
    "Some say that ships are the past. I say that ships are a harbour's children, and that "
    "children come home to the harbour. "
)
_NOTES = {
    "notes/2024-garden.md": "# Garden\n\nPlant the beans in May. The shed key hangs by the door.\n",
    "notes/2024-cabin.md": (
        "# Cabin\n\nWater: turn the red valve. The wifi password of the cabin is moosetrack77.\n"
    ),
    "notes/2024-car.md": "# Car\n\nWinter tyres are in the cellar. Next inspection in October.\n",
    "notes/2023-trip.md": "# Trip\n\nThe train to Bergen leaves at 08:25 from platform 3.\n",
}
_INVOICES = {
    f"invoices/{month}.txt": f"Invoices of {month}\n"
    + "".join(f"Invoice {number}: {amount} euros\n" for number, amount in rows)
    for month, rows in (
        ("january", ((4402, 120), (4409, 75))),
        ("february", ((4433, 310), (4438, 64))),
        ("march", ((4465, 88), (4471, 1250), (4479, 42))),
        ("april", ((4490, 230), (4494, 19))),
    )
}


def _log() -> str:
    draw = random.Random(5)
    levels = ["ERROR"] * 7 + ["INFO"] * 25 + ["WARNING"] * 8
    draw.shuffle(levels)
    return "".join(
        f"2026-03-02 11:{minute:02d}:07 {level} request {draw.randrange(1000, 9999)}\n"
        for minute, level in enumerate(levels)
    )


def _sales() -> tuple[str, int]:
    draw = random.Random(8)
    amounts = [draw.randrange(20, 900) for _ in range(30)]
    rows = [f"2026-02-{day:02d},{draw.choice('ABC')},{a}" for day, a in enumerate(amounts, 1)]
    return "date,shop,amount\n" + "\n".join(rows) + "\n", sum(amounts)


_SALES, _SALES_SUM = _sales()

TASKS = (
    Task("percent", "What is 17.5 % of 2,384?", lambda done: done.counts(417.2)),
    Task(
        "seconds",
        "How many seconds are there in 3 weeks, 2 days and 5 hours together?",
        lambda done: done.counts(2005200),
    ),
    Task(
        "area",
        "A room is 12.4 m long and 7.85 m wide. What is its area in square metres?",
        lambda done: done.counts(97.34),
    ),
    Task(
        "power",
        "What is 2^64 - 12345?",
        lambda done: done.says("18446744073709539271") or done.says("18,446,744,073,709,539,271"),
    ),
    Task(
        "write",
        "Write the text 'Buy milk and bread' to the file shopping.txt.",
        lambda done: done.file("shopping.txt").strip() == "Buy milk and bread",
    ),
    Task(
        "phone",
        "What is the phone number of Maria Lopez? It is in the file contacts.txt.",
        lambda done: done.says("910 55 71 28"),
        {"contacts.txt": _CONTACTS},
    ),
    Task(
        "errors",
        "How many lines of the file server.log contain the word ERROR?",
        lambda done: done.counts(7),
        {"server.log": _log()},
    ),
    Task(
        "first-line",
        "Copy the first line of poem.txt, and only that, into a new file first.txt.",
        lambda done: done.file("first.txt").strip() == _POEM.splitlines()[0],
        {"poem.txt": _POEM},
    ),
    Task(
        "port",
        "In config.ini, change the port from 8080 to 9090 and leave everything else as it is.",
        lambda done: done.file("config.ini").strip() == _INI.replace("8080", "9090").strip(),
        {"config.ini": _INI},
    ),
    Task(
        "sales",
        "What is the sum of the column amount in the file sales.csv?",
        lambda done: done.counts(_SALES_SUM),
        {"sales.csv": _SALES},
    ),
    Task(
        "squares",
        "Write the squares of the numbers 1 to 10 into the file squares.txt, one per line.",
        lambda done: done.lines("squares.txt") == [str(n * n) for n in range(1, 11)],
    ),
    Task("primes", "How many prime numbers are there below 5000?", lambda done: done.counts(669)),
    Task(
        "word",
        "Which word with more than four letters comes most often in speech.txt?",
        lambda done: done.says("harbour"),
        {"speech.txt": _SPEECH * 3},
    ),
    Task(
        "sort",
        "Sort the names in names.txt alphabetically and write them to sorted.txt, one per line.",
        lambda done: done.lines("sorted.txt") == sorted(_NAMES),
        {"names.txt": "\n".join(_NAMES) + "\n"},
    ),
    Task(
        "invoice",
        "In which of my files is invoice 4471 mentioned, and what is its amount?",
        lambda done: done.says("march") and done.counts(1250),
        _INVOICES,
    ),
    Task(
        "password",
        "Search my notes: what is the wifi password of the cabin?",
        lambda done: done.says("moosetrack77"),
        _NOTES,
    ),
    Task(
        "ticket",
        "What does a ticket for adults cost, according to SITE/visit.html?",
        lambda done: done.counts(14.5),
    ),
    Task(
        "founded",
        "Start at SITE/index.html and follow its links: in which year was the museum founded?",
        lambda done: done.counts(1893),
    ),
    Task(
        "director",
        "Write the mail address of the director, as SITE/staff.html has it, to director.txt.",
        lambda done: done.file("director.txt").strip() == "ingrid.holm@lantern.example",
    ),
    Task(
        "shop",
        "Add up the prices of all items on the page SITE/shop.html. What is the total?",
        lambda done: done.counts(127.65),
    ),
)
