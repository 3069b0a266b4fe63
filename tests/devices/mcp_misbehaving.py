"""An MCP server that does what no server should, by its first argument: a program for tests.

It speaks the protocol by hand, as far as a client needs it to.
"""

import json
import os
import sys
import time
from pathlib import Path

MODE = sys.argv[1]
TRACE = Path(sys.argv[2]) if len(sys.argv) > 2 else None  # what it received, a line per message
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
TOOLS = [{"name": "echo", "description": "Say it again.", "inputSchema": SCHEMA}]
LATER = [*TOOLS, {"name": "shout", "description": "Say it loudly.", "inputSchema": SCHEMA}]


def send(message: dict[str, object]) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def answer(request: dict[str, object], result: object) -> None:
    send({"id": request["id"], "result": result})


def say(request: dict[str, object], text: str) -> None:
    answer(request, {"content": [{"type": "text", "text": text}]})


def call(request: dict[str, object]) -> None:
    text = request["params"]["arguments"].get("text", "")
    match MODE:
        case "dies":
            print("out of cheese", file=sys.stderr, flush=True)
            os._exit(3)
        case "dies-once" if not (TRACE.parent / "died").exists():
            (TRACE.parent / "died").touch()
            os._exit(3)
        case "hangs":
            pass
        case "endless-line":
            chunk = "x" * (1 << 20)
            for _ in range(100):
                sys.stdout.write(chunk)
                sys.stdout.flush()
        case "endless-noise":
            for _ in range(100_000):
                print("x" * 1_000)
        case "invalid-json":
            print('{"jsonrpc": "2.0", "id": 1, "result": {"content": [', flush=True)
        case "wrong-result":
            answer(request, {"content": "no list"})
        case "chatter":
            print("Listening ...", "x" * 100_000, file=sys.stderr, flush=True)
            print("starting the call", flush=True)
            for n in range(2_000):
                send({"method": "notifications/message", "params": {"level": "info", "data": n}})
            say(request, text)
        case "environment":
            say(request, json.dumps(dict(os.environ)))
        case "changes":
            global TOOLS
            TOOLS = LATER
            send({"method": "notifications/tools/list_changed"})
            say(request, text)
        case "refuses":
            send({"id": request["id"], "error": {"code": -32602, "message": "no such thing"}})
        case _:
            say(request, text)


def main() -> None:
    if MODE == "silent":
        time.sleep(60)
    if MODE == "does-not-start":
        sys.exit("no licence")
    for line in sys.stdin:
        request = json.loads(line)
        if TRACE is not None:
            with TRACE.open("a") as file:
                file.write(line)
        match request.get("method"):
            case "initialize":
                version = request["params"]["protocolVersion"]
                capabilities = {"tools": {"listChanged": True}}
                info = {"name": "misbehaving", "version": "1"}
                answer(
                    request,
                    {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info},
                )
            case "tools/list":
                tools = TOOLS
                if MODE == "many-tools":
                    tools = [{**TOOLS[0], "name": f"echo{n}"} for n in range(10_000)]
                elif MODE == "endless-list":
                    answer(request, {"tools": tools, "nextCursor": "again"})
                    continue
                answer(request, {"tools": tools})
            case "tools/call":
                call(request)
            case _ if "id" in request:
                send({"id": request["id"], "error": {"code": -32601, "message": "not found"}})


main()
