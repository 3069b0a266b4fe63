"""Which system calls a confined program may not make, as a seccomp filter.

The filter is classic BPF over `struct seccomp_data` (seccomp(2)). Calls that this page does not
know, because they are newer, do not exist for the program: a list of what is refused must not get
weaker with the next kernel.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

# Numbers of one call: on x86_64, on aarch64. -1: the architecture has no such call.
_Numbers = tuple[int, int]

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LAST_KNOWN = 456  # futex_requeue; from 424 on, numbers are the same everywhere
_X32 = 0x40000000  # bit of the calls of x86_64's second, 32-bit interface

# Of other processes' memory and descriptors; tracing.
_INSPECTION: tuple[_Numbers, ...] = (
    (101, 117),  # ptrace
    (310, 270),  # process_vm_readv
    (311, 271),  # process_vm_writev
    (440, 440),  # process_madvise
    (312, 272),  # kcmp
    (438, 438),  # pidfd_getfd
    (298, 241),  # perf_event_open
    (323, 282),  # userfaultfd
)
_NAMESPACES: tuple[_Numbers, ...] = (
    (165, 40),  # mount
    (166, 39),  # umount2
    (155, 41),  # pivot_root
    (161, 51),  # chroot
    (429, 429),  # move_mount
    (428, 428),  # open_tree
    (430, 430),  # fsopen
    (431, 431),  # fsconfig
    (432, 432),  # fsmount
    (433, 433),  # fspick
    (442, 442),  # mount_setattr
    (272, 97),  # unshare
    (308, 268),  # setns
    (304, 265),  # open_by_handle_at
    (303, 264),  # name_to_handle_at
)
_MACHINE: tuple[_Numbers, ...] = (
    (167, 224),  # swapon
    (168, 225),  # swapoff
    (169, 142),  # reboot
    (170, 161),  # sethostname
    (171, 162),  # setdomainname
    (175, 105),  # init_module
    (313, 273),  # finit_module
    (176, 106),  # delete_module
    (246, 104),  # kexec_load
    (320, 294),  # kexec_file_load
    (163, 89),  # acct
    (179, 60),  # quotactl
    (443, 443),  # quotactl_fd
    (164, 170),  # settimeofday
    (227, 112),  # clock_settime
    (159, 171),  # adjtimex
    (305, 266),  # clock_adjtime
    (103, 116),  # syslog
    (153, 58),  # vhangup
    (172, -1),  # iopl
    (173, -1),  # ioperm
    (154, -1),  # modify_ldt
    (135, 92),  # personality
    (212, 18),  # lookup_dcookie
    (300, 262),  # fanotify_init
)
# Large parts of the kernel, or memory that no limit counts.
_SUBSYSTEMS: tuple[_Numbers, ...] = (
    (321, 280),  # bpf
    (250, 219),  # keyctl
    (248, 217),  # add_key
    (249, 218),  # request_key
    (425, 425),  # io_uring_setup
    (426, 426),  # io_uring_enter
    (427, 427),  # io_uring_register
    (253, -1),  # inotify_init: Landlock lets it watch any folder
    (294, 26),  # inotify_init1
    (256, 238),  # migrate_pages
    (279, 239),  # move_pages
    (319, 279),  # memfd_create
    (447, 447),  # memfd_secret
    (29, 194),  # shmget
    (68, 186),  # msgget
    (64, 190),  # semget
    (240, 180),  # mq_open
    (435, 435),  # clone3: its flags cannot be looked at; libraries then use clone
)
_CLONE = (56, 220)
_NEW_NAMESPACES = 0x7E020000
_SOCKET = (41, 198)
_SOCKETPAIR = (53, 199)
_AF_UNIX, _SOCK_TYPE, _SOCK_STREAM, _SOCK_SEQPACKET = 1, 0xF, 1, 5
_IOCTL = (16, 29)
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# What one process does to another of the same user: allowed to itself only, which is 0.
_FIRST_ARGUMENT_ZERO: tuple[_Numbers, ...] = (
    (302, 261),  # prlimit64
    (203, 122),  # sched_setaffinity
    (144, 119),  # sched_setscheduler
    (142, 118),  # sched_setparam
    (314, 274),  # sched_setattr
)
_SETPRIORITY, _PRIO_PROCESS = (141, 140), 0
_IOPRIO_SET, _IOPRIO_WHO_PROCESS = (251, 30), 1
# What Landlock lets be done to any file of the same user that can be named or opened. Nothing
# happens, and the program is told that it did: copying a file sets its mode, and is not to fail.
_ATTRIBUTES: tuple[_Numbers, ...] = (
    (90, -1),  # chmod
    (91, 52),  # fchmod
    (268, 53),  # fchmodat
    (452, 452),  # fchmodat2
    (92, -1),  # chown
    (93, 55),  # fchown
    (94, -1),  # lchown
    (260, 54),  # fchownat
    (132, -1),  # utime
    (235, -1),  # utimes
    (261, -1),  # futimesat
    (280, 88),  # utimensat
    (188, 5),  # setxattr
    (189, 6),  # lsetxattr
    (197, 14),  # removexattr
    (198, 15),  # lremovexattr
    (190, 7),  # fsetxattr
    (199, 16),  # fremovexattr
)

# Offsets in struct seccomp_data, and the instructions that are used (linux/filter.h).
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_GREATER, _IF_ANY_BIT = 0x15, 0x25, 0x45
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def seccomp_filter(machine: str, *, keep_attributes: bool) -> bytes | None:
    """The filter, an array of `struct sock_filter`; None: not for this architecture.

    Args:
        machine: the architecture's name, as `uname -m` says it.
        keep_attributes: whether modes, owners, times and extended attributes of files are not
            changed: where nothing else keeps the program from other files of its user.
    """
    if machine not in _ARCHITECTURES:
        return None
    column, audit = _ARCHITECTURES[machine]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_GREATER, 0, 1, _LAST_KNOWN),  # the calls of x32 among them
        (_RETURN, 0, 0, _FAIL | errno.ENOSYS),
    ]
    for call in (*_INSPECTION, *_NAMESPACES, *_MACHINE):
        program += _refuse(call[column], errno.EPERM)
    for call in _SUBSYSTEMS:
        program += _refuse(call[column], errno.ENOSYS)
    for call in _FIRST_ARGUMENT_ZERO:
        program += _when(call[column], _unless_equal(0, 0, errno.EPERM))
    program += _when(_CLONE[column], _if_any_bit(0, _NEW_NAMESPACES, errno.EPERM))
    program += _refuse(_SOCKET[column], errno.ENETUNREACH)
    program += _when(_SOCKETPAIR[column], _only_connected_pairs())
    program += _when(_IOCTL[column], _if_equal(1, _TIOCSTI) + _if_equal(1, _TIOCLINUX))
    for call, kind in ((_SETPRIORITY, _PRIO_PROCESS), (_IOPRIO_SET, _IOPRIO_WHO_PROCESS)):
        own = _unless_equal(0, kind, errno.EPERM) + _unless_equal(1, 0, errno.EPERM)
        program += _when(call[column], own)
    if keep_attributes:
        for call in _ATTRIBUTES:
            program += _refuse(call[column], 0)
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(_packed(program))


def _packed(program: list[_Instruction]) -> Iterator[bytes]:
    for code, true, false, constant in program:
        yield struct.pack("=HBBI", code, true, false, constant)


def _refuse(number: int, error: int) -> list[_Instruction]:
    if number < 0:
        return []
    return [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _FAIL | error)]


def _when(number: int, then: list[_Instruction]) -> list[_Instruction]:
    """Instructions for one call: what falls through them is allowed."""
    body = [*then, (_RETURN, 0, 0, _ALLOW)]
    return [(_IF_EQUAL, 0, len(body), number), *body]


def _argument(index: int) -> _Instruction:
    """Load the lower half: the arguments that are looked at are ints. Both are little-endian."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def _unless_equal(index: int, value: int, error: int) -> list[_Instruction]:
    return [_argument(index), (_IF_EQUAL, 1, 0, value), (_RETURN, 0, 0, _FAIL | error)]


def _if_equal(index: int, value: int) -> list[_Instruction]:
    return [_argument(index), (_IF_EQUAL, 0, 1, value), (_RETURN, 0, 0, _FAIL | errno.EPERM)]


def _if_any_bit(index: int, bits: int, error: int) -> list[_Instruction]:
    return [_argument(index), (_IF_ANY_BIT, 0, 1, bits), (_RETURN, 0, 0, _FAIL | error)]


def _only_connected_pairs() -> list[_Instruction]:
    """Pairs of streams: a pair of datagram sockets could still send to any address."""
    refusal = (_RETURN, 0, 0, _FAIL | errno.EACCES)
    return [
        *_unless_equal(0, _AF_UNIX, errno.EACCES),
        _argument(1),
        (_AND, 0, 0, _SOCK_TYPE),
        (_IF_EQUAL, 2, 0, _SOCK_STREAM),
        (_IF_EQUAL, 1, 0, _SOCK_SEQPACKET),
        refusal,
    ]
