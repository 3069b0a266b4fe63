"""Tasks to try prompts and loops on, so that the 20 stay unseen."""

from __future__ import annotations

import random

from bench.agents.task import Task

_STOCK = "item,count,price\nbolt,120,0.4\nnut,300,0.25\nwasher,80,0.1\nhinge,14,3.75\n"
_TODO = "call the plumber\nwater the plants\npay the rent\n"
_DIARY = {
    "diary/monday.txt": "Rain all day. Finished the report and sent it to Helen.\n",
    "diary/tuesday.txt": "Met Igor at the station. He lent me his blue bicycle.\n",
    "diary/wednesday.txt": "Dentist at nine. Bought a lamp for the hall.\n",
}
_TIDES = "day,high,low\nmonday,3.1,0.4\ntuesday,3.6,0.2\nwednesday,3.3,0.5\nthursday,2.9,0.8\n"
_RECIPES = {
    "recipes/bread.md": "# Bread\n\nFlour, water, salt, yeast. Bake for 40 minutes.\n",
    "recipes/paella.md": "# Paella\n\nRice, saffron, prawns and peas. Serves six.\n",
    "recipes/soup.md": "# Soup\n\nLeeks, potatoes, cream. Simmer for 25 minutes.\n",
}
_SETTINGS = '{\n  "language": "en",\n  "theme": "dark",\n  "volume": 40\n}\n'


def _visits() -> tuple[str, int]:
    draw = random.Random(3)
    devices = [draw.choice(("mobile", "tablet", "desktop")) for _ in range(60)]
    lines = [
        f"2026-05-04 {9 + at // 10:02d}:{at % 10}4 {device} /page/{draw.randrange(100, 999)}\n"
        for at, device in enumerate(devices)
    ]
    return "".join(lines), devices.count("mobile")


def _parcels() -> tuple[str, str]:
    draw = random.Random(4)
    weights = {f"P-{number}": draw.randrange(100, 9999) for number in range(4001, 4061)}
    rows = [
        f"{parcel},{draw.choice(('Lyon', 'Turin', 'Basel'))},{weights[parcel]}\n"
        for parcel in weights
    ]
    return "parcel,to,grams\n" + "".join(rows), max(weights, key=weights.__getitem__)


def _guests() -> list[str]:
    draw = random.Random(6)
    first = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ida", "Jan"]
    last = ["Bauer", "Costa", "Dahl", "Bloch", "Evans", "Franke", "Baum", "Gold"]
    return [
        f"{draw.choice(first)} {draw.choice(last)}, table {draw.randrange(1, 20)}"
        for _ in range(70)
    ]


_VISITS, _MOBILE = _visits()
_PARCELS, _HEAVIEST = _parcels()
_GUESTS = _guests()

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
    Task(
        "speed",
        "A train needs 2 hours and 45 minutes for 385 km. What is its mean speed in km/h?",
        lambda done: done.counts(140),
    ),
    Task("root", "What is the square root of 7056, plus 3^5?", lambda done: done.counts(327)),
    Task(
        "divisible",
        "How many of the numbers from 1 to 1000 can be divided by 7, but not by 5?",
        lambda done: done.counts(114),
    ),
    Task(
        "collatz",
        "Begin with 27. If a number is even, halve it, else triple it and add 1. How many steps "
        "does it take to get to 1?",
        lambda done: done.counts(111),
    ),
    Task(
        "backwards",
        "Write the lines of steps.txt to back.txt in reverse order.",
        lambda done: done.lines("back.txt") == ["serve", "stir", "pour", "boil"],
        {"steps.txt": "boil\npour\nstir\nserve\n"},
    ),
    Task(
        "capitals",
        "Make a copy of shout.txt in capital letters, named loud.txt.",
        lambda done: done.file("loud.txt").strip() == "MIND THE GAP.\nSTAND BACK.",
        {"shout.txt": "Mind the gap.\nStand back.\n"},
    ),
    Task(
        "last",
        "Save the last line of todo.txt, and nothing else, as last.txt.",
        lambda done: done.file("last.txt").strip() == _TODO.split("\n")[2],
        {"todo.txt": _TODO},
    ),
    Task(
        "tide",
        "On which day in tides.csv is the high tide highest?",
        lambda done: done.says("tuesday") and not done.says("monday"),
        {"tides.csv": _TIDES},
    ),
    Task(
        "cities",
        "How many different cities are there in cities.txt?",
        lambda done: done.counts(5),
        {"cities.txt": "Graz\nLinz\nGraz\nWels\nEnns\nLinz\nGraz\nBregenz\n"},
    ),
    Task(
        "rename",
        "Rename draft.txt to final.txt.",
        lambda done: done.file("final.txt") == "The end.\n" and not done.file("draft.txt"),
        {"draft.txt": "The end.\n"},
    ),
    Task(
        "language",
        "Set the language in settings.json to de, and change nothing else.",
        lambda done: (
            done.file("settings.json").strip() == _SETTINGS.replace('"en"', '"de"').strip()
        ),
        {"settings.json": _SETTINGS},
    ),
    Task(
        "saffron",
        "Which of my recipes needs saffron, and how many does it serve?",
        lambda done: done.says("paella") and (done.says("six") or done.counts(6)),
        _RECIPES,
    ),
    Task(
        "built",
        "Which ship was built in 2011, according to SITE/ferry/fleet.html?",
        lambda done: done.says("Kestrel"),
    ),
    Task(
        "ships",
        "Save the names of the ships on SITE/ferry/fleet.html to ships.txt, one per line.",
        lambda done: done.lines("ships.txt") == ["Aurora", "Kestrel", "Selkie"],
    ),
    Task(
        "trip",
        "Two people and their two bicycles make a single crossing. See SITE/ferry/fares.html: "
        "what do they pay together?",
        lambda done: done.counts(29.4),
    ),
    Task(
        "bicycles",
        "Begin at SITE/ferry/index.html and follow its links: what does it cost to take a bicycle?",
        lambda done: done.counts(3.5),
    ),
    Task(
        "visits",
        "How many lines of visits.log contain the word mobile?",
        lambda done: done.counts(_MOBILE),
        {"visits.log": _VISITS},
    ),
    Task(
        "heaviest",
        "Which parcel in parcels.csv is the heaviest?",
        lambda done: done.says(_HEAVIEST),
        {"parcels.csv": _PARCELS},
    ),
    Task(
        "guests",
        "Copy the lines of guests.txt that hold the name Dahl into dahl.txt.",
        lambda done: done.lines("dahl.txt") == [guest for guest in _GUESTS if "Dahl" in guest],
        {"guests.txt": "".join(f"{guest}\n" for guest in _GUESTS)},
    ),
)
