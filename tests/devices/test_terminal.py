"""The terminal device, and the transactions that it shares with the python device."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from oneiros.devices.sandbox.limits import Limits
from oneiros.devices.sandbox.mechanism import Mechanism
from oneiros.kernel.label import Label
from oneiros.kernel.tools import ToolError
from tests.devices.programs import Desk, at, started


@pytest.mark.parametrize("mechanism", Mechanism)
def test_commands_work_on_the_users_files(tmp_path: Path, mechanism: Mechanism) -> None:
    async def work(desk: Desk) -> None:
        desk.put("a.txt", "one\n")
        desk.put("dir/b.txt", "two\n")
        result = await desk.sh("cat a.txt dir/b.txt; echo three > dir/c.txt; rm a.txt; exit 3")
        assert result.text == "one\ntwo\nExit status 3.\nWrote dir/c.txt. Deleted a.txt."
        assert result.files == ("dir/c.txt",)
        assert result.data == {"output": "one\ntwo\n", "status": 3, "ended": False}
        assert desk.text("dir/c.txt") == "three\n"
        assert desk.paths() == ["dir/b.txt", "dir/c.txt"]
        assert (await desk.sh("true")).text == "(nothing printed)"
        assert (await desk.sh("echo error >&2; no-such-program")).data is not None
        missing = await desk.sh("no-such-program")
        assert "no-such-program: command not found" in missing.text
        assert "Exit status 127." in missing.text
        assert (await desk.sh("python -c 'import numpy; print(numpy.arange(3))'")).text == "[0 1 2]"
        assert (await desk.sh("cat")).text == "(nothing printed)"  # there is no input

    at(tmp_path, work, mechanism=mechanism)


def test_a_command_that_takes_too_long_is_ended_and_its_changes_dropped(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        desk.put("a.txt", "one\n")
        result = await desk.sh("echo begun; echo x > a.txt; echo y > b.txt; sleep 100")
        assert result.text == (
            "begun\nThe command was ended: it took longer than 1 seconds. "
            "Its changes of files were dropped."
        )
        assert desk.text("a.txt") == "one\n"
        # The next command finds the files as they are on the disk.
        assert (await desk.sh("cat *")).text == "one"

    at(tmp_path, work, Limits(seconds=1.0))


def test_what_is_no_file_is_refused_and_said(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        desk.put("kept", "x")
        result = await desk.sh(
            "ln -s /etc/passwd link; ln -s /usr folder; mkfifo pipe; touch $'a\\nb' .oneiros-x;"
            " echo fine > fine"
        )
        assert result.files == ("fine",)
        assert "link: a symbolic link, and no file" in result.text
        assert "folder: a symbolic link, and no file" in result.text
        assert "pipe: a pipe, and no file" in result.text
        assert "a\\nb: its name cannot be kept" in result.text
        assert desk.paths() == ["fine", "kept"]
        assert (await desk.sh("ls")).text == "fine\nkept"

    at(tmp_path, work)


def test_links_in_the_copy_lead_nothing_of_ours_astray(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)

    async def work(desk: Desk) -> None:
        desk.put("dir/a.txt", "one")
        # A file is to be copied to dir/b.txt, and its folder is a link to somewhere else now.
        await desk.sh(f"rm -r dir; ln -s {outside} dir")
        assert desk.paths() == []
        desk.put("dir/b.txt", "two")
        assert (await desk.sh("cat dir/b.txt")).text == "two"
        assert list(outside.iterdir()) == []
        # A folder is where a file belongs, and the other way round.
        assert "Not kept: dir: " in (await desk.sh("rm -r dir; echo file > dir")).text
        desk.put("dir/c.txt", "three")
        assert (await desk.sh("cat dir/c.txt; mkdir -p e/f")).text == "three"
        desk.put("e", "four")
        assert (await desk.sh("cat e")).text == "four"

    at(tmp_path, work)


def test_hard_links_inside_are_files_and_others_are_refused(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        desk.put("a.txt", "one")
        assert (await desk.sh("ln a.txt b.txt")).files == ("b.txt",)
        result = await desk.sh("ln a.txt $TMPDIR/c && echo two > a.txt")
        assert "a.txt: it has another name outside of the folder" in result.text
        assert desk.text("a.txt") == "one"

    at(tmp_path, work, mechanism=Mechanism.LANDLOCK)


def test_a_folder_that_is_closed_is_not_a_deleted_one(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        desk.put("dir/a.txt", "one")
        result = await desk.sh("echo two > dir/b.txt; chmod 0 dir")
        assert result.files == ("dir/b.txt",)
        assert desk.paths() == ["dir/a.txt", "dir/b.txt"]

    at(tmp_path, work)


def test_what_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    waiting = ("sleep", f"19.{os.getpid()}")

    async def work(desk: Desk) -> None:
        for name in ("changed", "deleted", "same"):
            desk.put(name, "old")

        async def meanwhile() -> None:
            sleeping = await started(*waiting)
            desk.put("changed", "by the user")
            desk.put("deleted", "by the user")
            desk.put("new", "by the user")
            os.kill(sleeping, signal.SIGKILL)

        command = "echo x > changed; rm deleted; echo x > new; echo x > same; "
        command += " ".join(waiting)
        result, _ = await asyncio.gather(desk.sh(command), meanwhile())
        assert result.files == ("same",)
        assert "changed: was changed meanwhile" in result.text
        assert "deleted: was changed meanwhile, and is not deleted" in result.text
        assert "new: another file of that name was not copied here" in result.text
        assert {desk.text(name) for name in ("changed", "deleted", "new")} == {"by the user"}

    at(tmp_path, work)


def test_only_a_folder_can_be_copied_and_nothing_else_is_touched(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        desk.put("a/1", "one", Label.of("web:a.com"))
        desk.put("b/2", "two", Label.of("web:b.com"))
        result = await desk.sh("find . -type f; mkdir b; echo x > b/2; echo y > b/3", folder="a")
        assert result.text.splitlines()[0] == "./a/1"
        assert result.files == ("b/3",)
        assert result.label == Label.of("web:a.com")
        assert desk.text("b/2") == "two"
        with pytest.raises(ToolError, match="no such folder"):
            await desk.sh("true", folder="c")
        with pytest.raises(ToolError, match="stays inside"):
            await desk.sh("true", folder="../..")

    at(tmp_path, work)


def test_a_folder_too_large_to_copy_is_refused_with_its_size(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        desk.put("large/file", "x" * 6_000)
        desk.put("small/file", "x")
        with pytest.raises(ToolError, match=r'"" has 6,001 bytes in 2 files.* at most 5,000 bytes'):
            await desk.sh("true")
        assert (await desk.sh("ls", folder="small")).text == "small"
        with pytest.raises(ToolError, match="at most 100,000 bytes"):
            await desk.sh("#" * 200_000)

    at(tmp_path, work, Limits(seconds=20, disk=10_000))


def test_changes_can_be_undone_call_by_call(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        desk.put("a", "old")
        desk.put("b", "old")
        context = desk.context(label=Label.of("user", "web:x.org"))
        await desk.terminal.run({"command": "echo new > a; rm b; echo c > c"}, context)
        changes = desk.disk.changes(context.call_id)
        assert sorted((change.path, change.kind) for change in changes) == [
            ("a", "write"),
            ("b", "delete"),
            ("c", "write"),
        ]
        assert "web:x.org" in desk.disk.label("c").origins
        assert {(change.tool, change.pid) for change in changes} == {("terminal", 1)}
        desk.disk.undo_call(context.call_id)
        assert (desk.text("a"), desk.text("b"), desk.paths()) == ("old", "old", ["a", "b"])

    at(tmp_path, work)


def test_programs_stay_executable_and_modes_do_not_count_as_changes(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        await desk.sh("printf '#!/bin/sh\\necho ran\\n' > tool; chmod +x tool")
        assert (await desk.sh("./tool")).text == "ran"
        await desk.workspaces.forget(1)  # and in a new copy
        assert (await desk.sh("./tool")).text == "ran"
        assert (await desk.sh("chmod 644 tool; touch tool")).files == ()

    at(tmp_path, work)


def test_python_and_terminal_share_the_folder(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        await desk.run("open('a', 'w').write('from python')")
        await desk.sh("mkdir empty; echo $(cat a) and a shell > b")
        assert (await desk.run("import os; sorted(os.listdir())")).text.endswith(
            "['a', 'b', 'empty']"
        )
        both = await asyncio.gather(desk.run("open('b').read()"), desk.sh("cat a"))
        assert [result.text for result in both] == [
            "'from python and a shell\\n'",
            "from python",
        ]

    at(tmp_path, work)
