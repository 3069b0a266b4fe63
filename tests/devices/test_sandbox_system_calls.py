"""The filter of system calls, run by an interpreter of its own: for both architectures."""

import errno
import struct

import pytest

from oneiros.devices.sandbox.system_calls import seccomp_filter

X86, ARM = 0xC000003E, 0xC00000B7
ALLOW, KILL = "allow", "kill"


def decide(program: bytes, architecture: int, number: int, *arguments: int) -> str:
    """What a filter says of a call: "allow", "kill", or the name of an error."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *[*arguments, *[0] * 6][:6])
    at = accumulator = 0
    while True:
        code, true, false, constant = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, constant)[0]
            case 0x54:
                accumulator &= constant
            case 0x15:
                at += true if accumulator == constant else false
            case 0x25:
                at += true if accumulator > constant else false
            case 0x45:
                at += true if accumulator & constant else false
            case 0x06 if constant == 0x7FFF0000:
                return ALLOW
            case 0x06 if constant == 0x80000000:
                return KILL
            case 0x06:
                assert constant >> 16 == 5
                return errno.errorcode.get(constant & 0xFFFF, "nothing")
            case _:
                pytest.fail(f"instruction {code:#x}")


def program(machine: str, *, keep_attributes: bool = False) -> bytes:
    found = seccomp_filter(machine, keep_attributes=keep_attributes)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("machine", "architecture", "number"),
    [
        # read, openat, execve, exit_group, mmap, futex, getrandom, statx, pidfd_open
        *(("x86_64", X86, number) for number in (0, 257, 59, 231, 9, 202, 318, 332, 434)),
        *(("aarch64", ARM, number) for number in (63, 56, 221, 94, 222, 98, 278, 291, 434)),
    ],
)
def test_what_every_program_needs_is_allowed(machine: str, architecture: int, number: int) -> None:
    assert decide(program(machine), architecture, number) == ALLOW


@pytest.mark.parametrize(
    ("machine", "architecture", "number", "error"),
    [
        ("x86_64", X86, 101, "EPERM"),  # ptrace
        ("aarch64", ARM, 117, "EPERM"),
        ("x86_64", X86, 165, "EPERM"),  # mount
        ("aarch64", ARM, 40, "EPERM"),
        ("x86_64", X86, 272, "EPERM"),  # unshare
        ("aarch64", ARM, 97, "EPERM"),
        ("x86_64", X86, 321, "ENOSYS"),  # bpf
        ("aarch64", ARM, 280, "ENOSYS"),
        ("x86_64", X86, 425, "ENOSYS"),  # io_uring_setup
        ("aarch64", ARM, 425, "ENOSYS"),
        ("x86_64", X86, 250, "ENOSYS"),  # keyctl
        ("aarch64", ARM, 219, "ENOSYS"),
        ("x86_64", X86, 41, "ENETUNREACH"),  # socket
        ("aarch64", ARM, 198, "ENETUNREACH"),
        ("x86_64", X86, 435, "ENOSYS"),  # clone3
        ("aarch64", ARM, 435, "ENOSYS"),
        ("x86_64", X86, 500, "ENOSYS"),  # not there yet
        ("aarch64", ARM, 500, "ENOSYS"),
        ("x86_64", X86, 0x40000000, "ENOSYS"),  # read, by the interface of x32
    ],
)
def test_calls_are_refused(machine: str, architecture: int, number: int, error: str) -> None:
    assert decide(program(machine), architecture, number) == error


@pytest.mark.parametrize(("machine", "other"), [("x86_64", ARM), ("x86_64", 0x40000003)])
def test_calls_of_another_architecture_end_the_program(machine: str, other: int) -> None:
    assert decide(program(machine), other, 0) == KILL


@pytest.mark.parametrize(
    ("machine", "architecture", "clone", "pair", "limit", "priority", "ioctl"),
    [("x86_64", X86, 56, 53, 302, 141, 16), ("aarch64", ARM, 220, 199, 261, 140, 29)],
)
def test_some_calls_are_refused_for_their_arguments(
    machine: str, architecture: int, clone: int, pair: int, limit: int, priority: int, ioctl: int
) -> None:
    def says(number: int, *arguments: int) -> str:
        return decide(program(machine), architecture, number, *arguments)

    assert says(clone, 0x3D0F00) == ALLOW  # a thread
    assert says(clone, 0x01200011) == ALLOW  # a process
    for namespace in range(25, 31):
        assert says(clone, 0x11 | 1 << namespace) == "EPERM"
    assert says(clone, 0x11 | 1 << 17) == "EPERM"
    assert says(pair, 1, 1 | 0o2000000) == ALLOW  # streams, closed on execution
    assert says(pair, 1, 5) == ALLOW
    assert says(pair, 1, 2) == says(pair, 16, 1) == "EACCES"
    assert says(limit, 0, 7) == ALLOW
    assert says(limit, 1234, 7) == "EPERM"
    assert says(priority, 0, 0, 10) == ALLOW
    assert says(priority, 0, 1234, 10) == says(priority, 2, 0, 10) == "EPERM"
    assert says(ioctl, 0, 0x5401) == ALLOW
    assert says(ioctl, 0, 0x5412) == says(ioctl, 0, 0x541C) == "EPERM"


@pytest.mark.parametrize(
    ("machine", "architecture", "numbers"),
    [("x86_64", X86, (90, 91, 268, 280, 188)), ("aarch64", ARM, (52, 53, 54, 88, 5))],
)
def test_attributes_of_files_can_be_kept_without_an_error(
    machine: str, architecture: int, numbers: tuple[int, ...]
) -> None:
    for number in numbers:
        assert decide(program(machine), architecture, number) == ALLOW
        kept = program(machine, keep_attributes=True)
        assert decide(kept, architecture, number) == "nothing"


def test_other_architectures_have_no_filter() -> None:
    assert seccomp_filter("riscv64", keep_attributes=False) is None
