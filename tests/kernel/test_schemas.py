"""Schemas are written by servers: whatever they are, a call fits or is refused."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from oneiros.kernel.schemas import misfit


def taking(value: object, **more: object) -> dict[str, object]:
    return {"type": "object", "properties": {"a": value}, **more}


def test_what_is_wrong_is_said_with_its_place() -> None:
    schema = taking({"$ref": "#/$defs/n"}, **{"$defs": {"n": {"type": "array", "items": {}}}})
    assert misfit(schema, {"a": [1]}) is None
    assert misfit(schema, {"a": 1}) == "a: 1 is not of type 'array'"
    assert misfit(taking({}, required=["a"]), {}) == ("the arguments: 'a' is a required property")


@pytest.mark.parametrize(
    "broken",
    [
        {"pattern": "("},
        {"$ref": "#/nowhere"},
        {"$ref": "#/properties/a"},
        {"$ref": "file:///etc/passwd"},
        {"$dynamicRef": "#nowhere"},
        {"$ref": 5},
        {"minLength": "5"},
        {"type": "something"},
        5,
    ],
)
def test_a_broken_schema_takes_nothing(broken: object) -> None:
    assert "schema is broken" in (misfit(taking(broken), {"a": "x"}) or "")


def test_nothing_is_fetched() -> None:
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/schema.json"
        said = misfit(taking({"$ref": address}), {"a": {}})
        server.shutdown()
        thread.join()
    assert "schema is broken" in (said or "") and not asked
