"""Which tools a request is shown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.apps.tool_choice import CORE, FEW, choose_tools
from oneiros.kernel.tools import Tool
from tests.apps.driver import tool


def made(name: str, description: str, *parameters: str) -> Tool:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    return tool(name, description, {"type": "object", "properties": properties})


TOOLS = (
    made("ask_person", "Ask the person a question that only they can answer.", "question"),
    made("calculate", "Calculate exactly: fractions, units, roots.", "expression"),
    made("create_invoice", "Draw up an invoice for a customer.", "customer", "amount"),
    made("edit_file", "Replace a text in a file by another.", "path", "old", "new"),
    made("fetch_page", "Read a web page as text.", "url"),
    made("list_files", "List the files and folders in a folder.", "path"),
    made("python", "Run Python code. The user's files are in the working folder.", "code"),
    made("read_file", "Read a file: text, code, PDF.", "path"),
    made("search_files", "Search the user's files: documents, notes.", "query"),
    made("search_web", "Search the web for pages. Read those with fetch_page.", "query"),
    made("set_timer", "Set a timer that sends a message.", "text", "seconds"),
    made("shipmentStatus", "Where a parcel is.", "trackingNumber"),
    made("write_file", "Make a text file, or replace a whole one.", "path", "text"),
)
NAMES = [one.name for one in TOOLS]


@pytest.mark.parametrize(
    ("request_text", "needed"),
    [
        ("What is 17 % of 230?", {"calculate"}),
        ("Read http://example.org/a.html and tell me its title.", {"fetch_page"}),
        ("Write the address from https://example.org to out.txt", {"fetch_page", "write_file"}),
        ("In setup.ini, change the port to 90.", {"edit_file", "read_file"}),
        ("What do my notes say about the cabin?", {"search_files", "read_file"}),
        ("Look up the latest news about tides.", {"search_web", "fetch_page"}),
        ("How many rows has table.csv?", {"python", "read_file"}),
        ("Remind me in 20 minutes to call Ann.", {"set_timer"}),
        ("Make an invoice over 90 euros for the customer Berg.", {"create_invoice"}),
        ("What is the status of shipment X7?", {"shipmentStatus"}),
        ("Write me a poem.", set(CORE)),
    ],
)
def test_a_request_is_shown_what_it_needs_and_not_everything(
    request_text: str, needed: set[str]
) -> None:
    chosen = choose_tools([request_text], TOOLS)
    assert needed <= set(chosen)
    assert len(chosen) < len(TOOLS) / 2


def test_few_tools_are_all_shown() -> None:
    assert choose_tools(["Write me a poem."], TOOLS[:FEW]) == tuple(NAMES[:FEW])


def test_a_tool_that_another_names_comes_with_it() -> None:
    tools = [*TOOLS, made("open_case", "Open a legal case. Close it with close_case.", "title")]
    tools.append(made("close_case", "The end.", "number"))
    assert "close_case" in choose_tools(["Open a legal case against the tide."], tools)


REQUESTS = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(
                [
                    "search",
                    "the",
                    "files",
                    "http://a.b/c",
                    "page",
                    "of",
                    "3",
                    "%",
                    "in",
                    "x.txt",
                    "timer",
                    "code",
                ]
            ),
            max_size=6,
        ).map(" ".join),
    ),
    max_size=6,
)


@settings(max_examples=100, deadline=None)
@given(REQUESTS, REQUESTS, st.permutations(TOOLS))
def test_a_conversation_only_adds_tools_and_always_says_the_same(
    before: list[str], after: list[str], tools: list[Tool]
) -> None:
    first = choose_tools(before, tools)
    then = choose_tools(before + after, tools)
    assert then[: len(first)] == first
    assert len(set(then)) == len(then)
    assert set(then) <= set(NAMES)
    assert set(choose_tools(before, TOOLS)) == set(first)
