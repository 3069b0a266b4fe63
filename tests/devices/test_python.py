"""The python device."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from oneiros.devices.python import NEW_INTERPRETER
from oneiros.devices.sandbox.limits import Limits
from oneiros.devices.sandbox.mechanism import Mechanism
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext
from tests.devices.programs import Desk, at, started


def body(text: str) -> str:
    """A result's text without the line that says that the interpreter is new."""
    return text.removeprefix(NEW_INTERPRETER).lstrip("\n")


def test_variables_stay_and_the_last_value_is_shown(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        first = await desk.run("import math\nx = 20\nprint('hello')\nx + 1")
        assert first.text == f"{NEW_INTERPRETER}\nhello\n21"
        assert (await desk.run("y = math.sqrt(x + 5)")).text == "y = 5.0"
        assert (await desk.run("z = 1\nprint(z)\nz += y")).text == "1"
        assert (await desk.run("z += 1")).text == "z = 7.0"
        assert (await desk.run("a, b = 1, 2")).text == "(nothing printed)"
        assert (await desk.run("if x:\n    y = 5.0")).text == "(nothing printed)"
        assert len((await desk.run("long = 'x' * 5000")).text) == 1001
        assert (await desk.run("z: int")).text == "(nothing printed)"
        assert (await desk.run("globals()[''] = 'boo'\nimport os")).text == "(nothing printed)"
        for quiet in (  # what cannot be shown is no mistake of the code's
            "class Bad:\n    def __repr__(self): raise AttributeError\nb = Bad()",
            "it = map(str, [1])",
            "b = Bad()",
        ):
            assert (await desk.run(quiet)).text == "(nothing printed)", quiet
        deep = await desk.run("t = []\nfor _ in range(100000): t = [t]\nu = t")
        assert deep.text == "u = [[[[[...]]]]]"
        many = await desk.run("d = {'a': list(range(300000))}")
        assert many.text.startswith("d = {'a': [0, 1, 2,") and len(many.text) < 300
        assert (await desk.run("(x, y)")).text == "(20, 5.0)"
        assert (await desk.run("print('shown'); None")).text == "shown"
        result = await desk.run("import sys; print('to stderr', file=sys.stderr); 'text'")
        assert result.text == "to stderr\n'text'"
        assert result.data == {
            "output": "to stderr\n",
            "value": "'text'",
            "error": None,
            "ended": False,
        }

    at(tmp_path, work)


def test_statements_in_one_line_are_read_as_they_are_meant(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        wrote = await desk.run("with open('a', 'w') as f: f.write('b\\na with c\\n')")
        assert "a" in wrote.files
        both = await desk.run(
            "with open('a') as f: lines = f.readlines(); lines.sort(); "
            "with open('b', 'w') as f: f.writelines(lines)"
        )
        assert both.text.startswith("[read as 2 lines]\n") and "b" in both.files
        assert (await desk.run("open('b').read()")).text == "'a with c\\nb\\n'"
        summed = await desk.run("import math; x = 0; for n in [1, 2]: x += n\nx * 2")
        assert summed.text == "[read as 3 lines]\n6"
        told = await desk.run("import os import math\nwith open('b') as f: t = f.read() 1 / 0")
        assert "SyntaxError" in told.text
        nowhere = await desk.run("y = 0; for n in [1]: y += 1\n1 / 0")
        assert "line 3: 1 / 0\nZeroDivisionError" in nowhere.text  # of what was run

    at(tmp_path, work)


def test_values_are_shown_as_models_can_read_them(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        table = await desk.run("[{'name': 'Ada', 'born': 1815}, {'name': 'Alan'}]")
        assert body(table.text).splitlines() == [
            "name  born",
            "----------",
            "Ada   1815",
            "Alan",
        ]
        array = await desk.run("import numpy as np\nnp.arange(6).reshape(2, 3)")
        assert array.text == "array([[0, 1, 2],\n       [3, 4, 5]])"
        long = await desk.run("list(range(1_000_000))")
        assert "1,000 of 1,000,000 items are shown" in long.text
        assert len(long.text) < 20_000
        assert len((await desk.run("'x' * 10_000_000")).text) < 200_000
        # A second call of display in the middle is shown, too.
        assert (await desk.run("display(1, [2])\n3")).text == "1\n[2]\n3"

    at(tmp_path, work)


def test_mistakes_are_told_by_their_lines_and_change_no_variables(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        await desk.run("kept = 1\ndef half(n):\n    return n / 0")
        error = (await desk.run("a = 1\nhalf(3)")).text
        assert error.splitlines() == [
            "line 2: half(3)",
            "call 1, line 3, in half: return n / 0",
            "ZeroDivisionError: division by zero",
        ]
        syntax = (await desk.run("if True\n    pass")).text
        assert syntax == "line 1: if True\nSyntaxError: expected ':'"
        inside = (await desk.run("import json\njson.loads('{')")).text
        assert inside.startswith("line 2: json.loads('{')\njson/decoder.py, line ")
        assert len(inside.splitlines()) == 3
        assert "EOFError" in (await desk.run("input()")).text
        assert "SystemExit: 3" in (await desk.run("import sys; sys.exit(3)")).text
        assert "RecursionError" in (await desk.run("def f(): f()\nf()")).text
        assert (await desk.run("kept, a")).text == "(1, 1)"

    at(tmp_path, work)


def test_mistakes_say_what_to_do_and_read_the_same_each_time(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        await desk.run("1")
        for code, advice in (
            ("import no_such_module", "ModuleNotFoundError: .* is not installed here"),
            ("words.split()", "NameError: .* read with open"),
            ("if 1: x = 0; for n in [1]: x += n", "SyntaxError: .* on a line of its own"),
            ("for n in [1]: x = 1 with open('b') as f: y = 2", "on a line of its own"),
            ("x = [i for i in range(3)", r"^line 1: .*\nSyntaxError: '\[' was never closed$"),
            ("from math import sqrt)", r"^line 1: .*\nSyntaxError: unmatched '\)'$"),
            ("print('a' b); with open('b') as f: 2", "print.'a' b.; with .*\nSyntaxError"),
        ):
            first, second = (await desk.run(code)).text, (await desk.run(code)).text
            assert first == second
            assert re.search(advice, first)
        assert all(name in desk.python.description for name in ("numpy", "matplotlib", "pandas"))

    at(tmp_path, work)


def test_figures_are_saved_among_the_files(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        result = await desk.run(
            "import matplotlib.pyplot as plt\nplt.plot([1, 10, 100])\nplt.yscale('log')\nplt.show()"
        )
        assert result.files == ("figure-1.png",)
        assert body(result.text) == "Wrote figure-1.png."
        assert desk.disk.read("figure-1.png").startswith(b"\x89PNG")
        again = await desk.run("plt.plot([1]); plt.figure(); plt.plot([2]);")
        assert again.files == ("figure-2.png", "figure-3.png")
        own = await desk.run("plt.plot([1]); plt.savefig('mine.png')")
        assert own.files == ("mine.png",)

    at(tmp_path, work)


def test_code_reads_and_writes_the_users_files(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        desk.put("data/rounds.csv", "a,1\n")
        assert body((await desk.run("open('data/rounds.csv').read()")).text) == "'a,1\\n'"
        # What others write is there in the next call, in the same interpreter.
        desk.put("data/rounds.csv", "b,2\n")
        desk.put("more.txt", "more")
        assert (await desk.run("open('data/rounds.csv').read()")).text == "'b,2\\n'"
        result = await desk.run("open('data/rounds.csv', 'a').write('c,3\\n')\nopen('new', 'w')")
        assert result.files == ("data/rounds.csv", "new")
        assert desk.text("data/rounds.csv") == "b,2\nc,3\n"
        # Files written before a mistake are kept, as in a notebook.
        await desk.run("open('before', 'w').write('x')\n1 / 0\nopen('after', 'w')")
        assert desk.paths() == ["before", "data/rounds.csv", "more.txt", "new"]

    at(tmp_path, work)


@pytest.mark.parametrize("mechanism", Mechanism)
def test_a_deadline_ends_the_interpreter_and_drops_what_it_changed(
    tmp_path: Path, mechanism: Mechanism
) -> None:
    async def work(desk: Desk) -> None:
        await desk.run("x = 1")
        late = await desk.run("print('begun')\nopen('half', 'w').write('x')\nwhile True: pass")
        assert late.text.startswith("begun\nThe interpreter ended: it took longer than 1 seconds.")
        assert "All variables are gone" in late.text
        assert desk.paths() == []
        again = await desk.run("x")
        assert again.text.startswith(NEW_INTERPRETER)
        assert "NameError" in again.text

    at(tmp_path, work, Limits(seconds=1.0), mechanism)


def test_an_interpreter_that_ends_says_so(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        ended = await desk.run("import os; os._exit(3)")
        assert "The interpreter ended: status 3. All variables are gone" in ended.text
        assert body((await desk.run("1")).text) == "1"
        # Whoever writes to its socket speaks for the interpreter; nonsense ends it.
        forged = await desk.run(
            "import os, sys\n"
            "number = next(n for n in range(3, 100) if os.path.exists(f'/proc/self/fd/{n}'))\n"
            "os.write(number, b'\\xff\\xff\\xff\\xff nonsense')"
        )
        assert "All variables are gone" in forged.text
        assert body((await desk.run("2")).text) == "2"
        # So does what looks like a reply, and is none.
        for reply in ({"figures": []}, {"value": None, "error": None, "figures": []}):
            forged = await desk.run(
                "import json, os\n"
                "number = next(n for n in range(3, 100) if os.path.exists(f'/proc/self/fd/{n}'))\n"
                f"data = json.dumps({reply!r}).encode()\n"
                "os.write(number, len(data).to_bytes(4, 'little') + data)"
            )
            assert "All variables are gone" in forged.text
            assert body((await desk.run("3")).text) == "3"

    at(tmp_path, work)


def test_each_process_has_its_own_interpreter(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        await desk.run("x = 'of 1'", pid=1)
        await desk.run("x = 'of 2'", pid=2)
        one, two = await asyncio.gather(desk.run("x", pid=1), desk.run("x", pid=2))
        assert (one.text, two.text) == ("'of 1'", "'of 2'")
        # Only so many are kept: the one that was not used for longest has to go, and says so.
        await desk.run("x = 'of 1 again'", pid=1)
        await desk.run("x = 'of 3'", pid=3)
        assert (await desk.run("x", pid=1)).text == "'of 1 again'"
        assert (await desk.run("x", pid=2)).text.startswith(NEW_INTERPRETER)

    at(tmp_path, work)


def test_nothing_runs_between_two_calls(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        await desk.run(
            "import subprocess, threading, time\n"
            "child = subprocess.Popen(['sleep', '100'])\n"
            "ticks = []\n"
            "def tick():\n"
            "    while True:\n        ticks.append(time.monotonic()); time.sleep(0.001)\n"
            "threading.Thread(target=tick, daemon=True).start()\n"
            "while not ticks: time.sleep(0.001)"
        )
        await asyncio.sleep(0.3)
        longest = await desk.run(
            "known = len(ticks)\nwhile len(ticks) < known + 2: time.sleep(0.001)\n"
            "max(after - before for before, after in zip(ticks, ticks[1:]))"
        )
        assert float(longest.text) >= 0.3
        assert (await desk.run("child.wait()")).text == "-9"

    at(tmp_path, work)


def test_a_cancelled_call_leaves_neither_changes_nor_an_interpreter(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        await desk.run("x = 1")
        waiting = ["sleep", f"101.{os.getpid()}"]
        code = f"open('f', 'w').write('x')\nimport subprocess\nsubprocess.Popen({waiting})\n"
        call = asyncio.ensure_future(desk.run(code + "while True: pass"))
        await started(*waiting)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await desk.run("2")).text == f"{NEW_INTERPRETER}\n2"
        assert desk.paths() == []

    at(tmp_path, work)


def test_a_result_and_files_have_the_labels_of_all_that_code_could_read(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        desk.put("page", "from the web", Label.of("web:example.com", readers=["ann"]))
        result = await desk.run("open('note', 'w').write('x')")
        assert result.label == Label.of("web:example.com", readers=["ann"])
        assert desk.disk.label("note") == Label.of("user", "web:example.com", readers=["ann"])
        # It may be in a variable: later calls carry it, without the file as well.
        desk.disk.delete("page", call_id="x")
        desk.disk.delete("note", call_id="x")
        assert "web:example.com" in (await desk.run("1")).label.origins

    at(tmp_path, work)


def test_an_interrupted_call_is_undone(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        desk.put("a", "old")
        context = desk.context()
        code = "open('a', 'w').write('new'); open('b', 'w').write('x')"
        await desk.python.run({"code": [code]}, context)
        assert desk.text("a") == "new"
        assert desk.python.reconcile is not None
        assert await desk.python.reconcile({"code": [code]}, context) is None
        assert desk.text("a") == "old"
        assert desk.paths() == ["a"]
        other = CallContext(1, "unheard of", "ann", "assistant", Label.of("user"))
        assert await desk.python.reconcile({"code": [code]}, other) is None

    at(tmp_path, work)
