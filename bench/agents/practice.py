"""Twelve tasks to try prompts and loops on, so that the 20 stay unseen."""

from __future__ import annotations

from bench.agents.task import Task

_STOCK = "item,count,price\nbolt,120,0.4\nnut,300,0.25\nwasher,80,0.1\nhinge,14,3.75\n"
_TODO = "call the plumber\nwater the plants\npay the rent\n"
_DIARY = {
    "diary/monday.txt": "Rain all day. Finished the report and sent it to Helen.\n",
    "diary/tuesday.txt": "Met Igor at the station. He lent me his blue bicycle.\n",
    "diary/wednesday.txt": "Dentist at nine. Bought a lamp for the hall.\n",
}

PRACTICE = (
    Task("times", "What is 348 times 279?", lambda done: done.counts(97092)),
    Task(
        "celsius",
        "Convert 98.6 degrees Fahrenheit to degrees Celsius.",
        lambda done: done.counts(37),
    ),
    Task(
        "greeting",
        "Create the file hello.txt with the text: Good morning, Vienna!",
        lambda done: done.file("hello.txt").strip() == "Good morning, Vienna!",
    ),
    Task(
        "append",
        "Add the line 'buy stamps' at the end of todo.txt and keep the other lines.",
        lambda done: done.lines("todo.txt") == [*_TODO.split("\n")[:3], "buy stamps"],
        {"todo.txt": _TODO},
    ),
    Task(
        "stock",
        "What is the total value (count times price) of all items in stock.csv?",
        lambda done: done.counts(183.5),
        {"stock.csv": _STOCK},
    ),
    Task(
        "fibonacci",
        "Write the first 12 Fibonacci numbers, beginning with 1, 1, to fib.txt, one per line.",
        lambda done: (
            done.lines("fib.txt")
            == ["1", "1", "2", "3", "5", "8", "13", "21", "34", "55", "89", "144"]
        ),
    ),
    Task(
        "letters",
        "How many times does the letter e occur in text.txt?",
        lambda done: done.counts(15),
        {"text.txt": "There were seven geese here before the wind rose.\n"},
    ),
    Task(
        "bicycle",
        "Search my diary: who lent me a bicycle, and which colour has it?",
        lambda done: done.says("Igor", "blue"),
        _DIARY,
    ),
    Task(
        "fare",
        "How much is a return ticket, according to SITE/ferry/fares.html?",
        lambda done: done.counts(19.6),
    ),
    Task(
        "newest",
        "Start at SITE/ferry/index.html and follow its links: which ship is the newest?",
        lambda done: done.says("Selkie"),
    ),
    Task(
        "seats",
        "How many seats do all ships on SITE/ferry/fleet.html have together?",
        lambda done: done.counts(1005),
    ),
    Task(
        "booking",
        "Write the mail address for bookings from SITE/ferry/fares.html to booking.txt.",
        lambda done: done.file("booking.txt").strip() == "booking@northsound.example",
    ),
)
