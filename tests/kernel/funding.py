"""The site of an invented company, the task about it, and an analyst who carries it out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oneiros.model.chat_format import Message
from tests.kernel.running import Reply

TASK = (
    "Collect the funding rounds of Halcyon Robotics from {start}. Make a table valuations.csv of "
    "them with the columns round, date, amount, valuation (both in millions of dollars), imputed "
    "(yes or no) and source (the page's address). Where the valuation was not disclosed, impute it "
    "from the mean ratio of valuation to amount of the other rounds. Then plot the valuations over "
    "time into valuations.png, on a log scale, with gridlines and a trend line that goes on until "
    "2030, and tell me the valuation that the trend gives for 2030."
)

# The same in four messages, for a model that needs to be told how.
STEPS = (
    "Read {start} with fetch_page, then the list of rounds that it links to, then the page of each "
    "round, with one call of fetch_page for each address. When you have read all of them, give me "
    "a table of round, date, amount, valuation and the page's address.",
    "Two valuations were not disclosed. Calculate the mean of valuation / amount of the other "
    "rounds, and multiply the two amounts by it.",
    "With python, write the table to valuations.csv, with valuations in millions of dollars, and "
    "plot the valuations over time into valuations.png, on a log scale and with gridlines. There "
    "are csv, numpy and matplotlib, and no pandas.",
    "Add a trend line to the plot that goes on until 2030 (numpy.polyfit over the logarithms), and "
    "tell me what it gives for 2030.",
)

# Round, date, amount and valuation in millions of dollars; None: not disclosed.
ROUNDS = (
    ("Seed", "2015-03", 1.2, 6.0),
    ("Series A", "2016-09", 8.0, 40.0),
    ("Series B", "2018-02", 25.0, None),
    ("Series C", "2019-11", 60.0, 360.0),
    ("Series D", "2021-05", 150.0, None),
    ("Series E", "2023-08", 300.0, 2100.0),
)
RATIO = 5.75  # mean of 5, 5, 6 and 7
PAGES = ("seed", "series-a", "series-b", "series-c", "press", "series-e")

_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
_MONEY = r"\$([\d.]+) (million|billion)"

PLOT = """
import csv, json
import matplotlib.pyplot as plt
import numpy as np

rows = json.loads({rows!r})
with open("valuations.csv", "w", newline="") as file:
    table = csv.DictWriter(file, rows[0].keys())
    table.writeheader()
    table.writerows(rows)

years = np.array([int(r["date"][:4]) + (int(r["date"][5:]) - 0.5) / 12 for r in rows])
values = np.array([r["valuation"] for r in rows])
imputed = np.array([r["imputed"] == "yes" for r in rows])
slope, start = np.polyfit(years, np.log10(values), 1)
ahead = np.linspace(years[0], 2030, 100)

figure, axes = plt.subplots(figsize=(9, 5), dpi=100)
axes.plot(ahead, 10 ** (start + slope * ahead), "--", color="red", label="trend")
axes.scatter(years[~imputed], values[~imputed], color="blue", zorder=3, label="disclosed")
axes.scatter(years[imputed], values[imputed], color="green", zorder=3, label="imputed")
axes.set_yscale("log")
axes.grid(True, which="both", linewidth=0.5)
axes.set(title="Halcyon Robotics", xlabel="year", ylabel="valuation, millions of dollars")
axes.legend()
figure.savefig("valuations.png")
lines = [line.get_visible() for line in axes.get_xgridlines() + axes.get_ygridlines()]
print(json.dumps({{"scale": axes.get_yscale(), "grid": all(lines), "until": float(ahead[-1]),
                  "trend": float(10 ** (start + slope * 2030))}}))
"""


@dataclass(frozen=True, slots=True)
class Read:
    """A page as the tool showed it."""

    url: str
    text: str
    links: dict[int, str]


def analyst(messages: Sequence[Message]) -> Reply:
    """What a model would say that does the task well, from nothing but what it has read.

    It keeps nothing: like a model, it sees the messages, and says what comes next.
    """
    results = [message for message in messages if message["role"] == "tool"]
    pages = [_read(m["content"]) for m in results if m["name"] == "fetch_page"]
    sums = [m["content"] for m in results if m["name"] == "calculate"]
    programs = [m["content"] for m in results if m["name"] == "python"]
    if not pages:
        asked = next(m["content"] for m in messages if m["role"] == "user")
        return _fetch(re.findall(r"https?://\S+?(?=\.? )", asked))
    if len(pages) == 1:
        return _fetch([_link(pages[0], "the list of rounds")])
    if len(pages) == 2:
        listed = re.findall(r"^- .*?\[(\d+)\]", pages[1].text, re.MULTILINE)
        return _fetch([pages[1].links[int(n)] for n in listed])
    rows = sorted(map(_round, pages[2:]), key=lambda row: str(row["date"]))
    known = [row for row in rows if row["valuation"] is not None]
    if not sums:
        ratios = ", ".join(f"{row['valuation']:g}/{row['amount']:g}" for row in known)
        return [("calculate", json.dumps({"expression": f"mean({ratios})"}))]
    if len(sums) == 1:
        ratio = _result(sums[0])
        return [
            ("calculate", json.dumps({"expression": f"{row['amount']:g} * {ratio:g}"}))
            for row in rows
            if row["valuation"] is None
        ]
    imputed = {float(said.partition(" ")[0]): _result(said) for said in sums[1:]}
    for row in rows:
        row["imputed"] = "no" if row["valuation"] is not None else "yes"
        if row["valuation"] is None:
            row["valuation"] = imputed[row["amount"]]
    if not programs:
        return [("python", json.dumps({"code": PLOT.format(rows=json.dumps(rows)).split("\n")}))]
    trend = json.loads(re.findall(r"\{.*\}", programs[0])[0])["trend"]
    table = "\n".join(
        f"| {row['round']} | {row['date']} | {row['amount']:g} | {row['valuation']:g} "
        f"| {row['source']} |"
        for row in rows
    )
    return f"{table}\n\nThe trend gives {trend:,.0f} million dollars for 2030 (valuations.png)."


def _fetch(urls: Sequence[str]) -> Reply:
    return [("fetch_page", json.dumps({"url": url})) for url in urls]


def _read(shown: str) -> Read:
    head, _, body = shown.partition("\n\n")
    links = re.findall(r"^\[(\d+)\] (?:.*: )?(http\S+)$", shown, re.MULTILINE)
    return Read(head.splitlines()[1], body, {int(n): url for n, url in links})


def _link(page: Read, text: str) -> str:
    return page.links[int(re.findall(re.escape(text) + r" \[(\d+)\]", page.text)[0])]


def _round(page: Read) -> dict[str, Any]:
    """The round that a page is about; amounts come before valuations on all of them."""
    text = page.text.partition("## Series D")[2].partition("## ")[0] or page.text
    month, year = re.findall(rf"({'|'.join(_MONTHS)}) (\d{{4}})", text)[0]
    money = [float(n) * (1000 if unit == "billion" else 1) for n, unit in re.findall(_MONEY, text)]
    name = re.findall(r"Series [A-E]|Seed", text)[0]
    return {
        "round": name,
        "date": f"{year}-{_MONTHS.index(month) + 1:02}",
        "amount": money[0],
        "valuation": money[1] if len(money) > 1 else None,
        "imputed": "",
        "source": page.url,
    }


def _result(said: str) -> float:
    return float(re.findall(r"= ([\d.]+)$", said)[0])
