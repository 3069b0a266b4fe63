"""What a hostile program tries. Run inside a sandbox; prints what each attempt came to, as JSON.

An attempt is a function; what it returns is what it got away with. One that raises was stopped.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

TARGET = json.loads(sys.argv[1])  # what the host side set up
HOME = Path(TARGET["home"])
SECRET = Path(TARGET["secret"])
VICTIM = TARGET["victim"]
X86 = os.uname().machine == "x86_64"

libc = ctypes.CDLL(None, use_errno=True)
ATTEMPTS = {}


def attempt(function):
    ATTEMPTS[function.__name__] = function
    return function


def syscall(x86, arm, *arguments):
    """Make a system call. That the kernel finds fault with its arguments means that it is there."""
    result = libc.syscall(ctypes.c_long(x86 if X86 else arm), *arguments)
    if result < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
        raise OSError(ctypes.get_errno(), "refused")
    return f"system call returned {result}, error {ctypes.get_errno()}"


# Reading


@attempt
def read_a_secret():
    return SECRET.read_text()


@attempt
def list_the_home():
    return list(HOME.iterdir())


@attempt
def list_the_folder_of_all_sandboxes():
    return list(Path(TARGET["sandboxes"]).iterdir())


@attempt
def read_passwords():
    return Path("/etc/passwd").read_text(), Path("/etc/shadow").read_text()


@attempt
def read_through_a_symbolic_link():
    Path("link").symlink_to(SECRET)
    try:
        return Path("link").read_text()
    finally:
        Path("link").unlink()


@attempt
def read_through_a_hard_link():
    os.link(SECRET, "hard")
    return Path("hard").read_text()


@attempt
def move_a_secret_here():
    SECRET.rename("moved")
    return Path("moved").read_text()


@attempt
def read_through_the_first_process():
    return Path(f"/proc/1/root{SECRET}").read_text()


@attempt
def read_through_proc_self_root():
    return Path(f"/proc/self/root{SECRET}").read_text()


@attempt
def read_the_environment_of_another_process():
    text = Path(f"/proc/{VICTIM}/environ").read_text()
    return text if TARGET["marker"] in text else 1 / 0


@attempt
def read_the_command_of_another_process():
    text = Path(f"/proc/{VICTIM}/cmdline").read_text()
    return text if TARGET["marker"] in text else 1 / 0


@attempt
def find_another_process():
    commands = {path: (path / "cmdline").read_text() for path in Path("/proc").glob("[1-9]*")}
    found = [
        path
        for path, command in commands.items()
        if TARGET["marker"] in command and "attempts.py" not in command
    ]
    return found or 1 / 0


@attempt
def read_the_memory_of_the_stage():
    return Path(f"/proc/{os.getppid()}/mem").open("rb").read(1)


@attempt
def open_by_handle():
    handle = ctypes.create_string_buffer(128)
    ctypes.c_uint.from_buffer(handle).value = 120
    mount = ctypes.c_int()
    return syscall(
        303, 264, -100, os.fsencode(SECRET), handle, ctypes.byref(mount), ctypes.c_int(0)
    )


@attempt
def watch_a_folder():
    return syscall(294, 26, ctypes.c_int(0))


@attempt
def list_beside_the_folder():
    found = [*Path("..").iterdir(), *Path("../..").iterdir()]
    return [path for path in found if TARGET["marker"] in path.name or "home" in path.name] or 1 / 0


@attempt
def read_through_the_folder_of_the_stage():
    return list(Path(f"/proc/{os.getppid()}/cwd/{HOME}").iterdir())


@attempt
def read_shared_memory_of_others():
    return Path("/dev/shm", TARGET["marker"]).read_text()


@attempt
def read_inherited_descriptors():
    for name in range(3, 1024):
        try:
            if (os.fstat(name).st_dev, os.fstat(name).st_ino) == tuple(TARGET["inode"]):
                return os.pread(name, 100, 0)
        except OSError:
            continue
    return 1 / 0


@attempt
def read_secrets_of_the_environment():
    secret = TARGET["marker"] + "-environment"
    texts = ["\n".join(os.environ.values())]
    for pid in ("self", os.getppid(), 1):
        try:
            texts.append(Path(f"/proc/{pid}/environ").read_text())
        except OSError:
            continue
    return [text for text in texts if secret in text] or 1 / 0


@attempt
def read_the_log_of_the_kernel():
    return Path("/dev/kmsg").open("rb").read(1)


@attempt
def read_the_memory_of_the_machine():
    return Path("/proc/kcore").open("rb").read(1)


# Writing


@attempt
def write_through_a_symbolic_link():
    Path("to-secret").symlink_to(SECRET)
    try:
        Path("to-secret").write_text("changed")
    finally:
        Path("to-secret").unlink()
    return "written"


@attempt
def exchange_a_file_with_a_secret():
    Path("own").write_text("x")
    result = libc.renameat2(-100, b"own", -100, os.fsencode(SECRET), 2)  # RENAME_EXCHANGE
    return "exchanged" if result == 0 else 1 / 0


@attempt
def change_a_setting_of_the_kernel():
    Path("/proc/sys/kernel/core_pattern").write_text("|/bin/true")
    return "changed"


@attempt
def press_the_magic_key():
    Path("/proc/sysrq-trigger").write_text("h")
    return "pressed"


@attempt
def leave_the_control_group():
    groups = list(Path("/sys/fs/cgroup").glob("**/cgroup.procs"))
    return [path.write_text(str(os.getpid())) for path in groups] or 1 / 0


@attempt
def write_into_shared_memory_of_others():
    path = Path("/dev/shm", TARGET["marker"])
    return (path.exists() and path.write_text("changed")) or 1 / 0


@attempt
def write_a_secret():
    SECRET.write_text("changed")
    return "written"


@attempt
def truncate_a_secret():
    os.truncate(SECRET, 0)
    return "truncated"


@attempt
def delete_a_secret():
    SECRET.unlink()
    return "deleted"


@attempt
def write_into_the_home():
    (HOME / "planted").write_text("x")
    return "written"


@attempt
def make_a_folder_in_the_home():
    (HOME / "planted").mkdir()
    return "made"


@attempt
def write_into_the_system():
    Path("/usr/planted").write_text("x")
    return "written"


@attempt
def write_into_python():
    (Path(sys.base_prefix) / "planted").write_text("x")
    return "written"


@attempt
def write_into_the_stage():
    with Path(TARGET["programs"], "stage.py").open("a") as file:
        file.write("\n")
    return "written"


@attempt
def find_what_is_read_mounted_writable():
    if not TARGET["mounted"]:
        return 1 / 0
    folders = [sys.base_prefix, sys.prefix, TARGET["programs"], "/usr", "/", "/dev"]
    writable = [name for name in folders if not os.statvfs(name).f_flag & os.ST_RDONLY]
    return writable or 1 / 0


@attempt
def make_a_device():
    os.mknod("null", 0o600 | 0o020000, os.makedev(1, 3))
    return "made"


@attempt
def fill_the_memory_of_dev():
    Path("/dev/planted").write_text("x")
    return "written"


# Not stopped where it only seems to work: the host side looks whether anything changed.


@attempt
def change_the_mode_of_a_secret():
    SECRET.chmod(0o777)


@attempt
def change_the_mode_of_the_home():
    HOME.chmod(0o777)


@attempt
def change_the_times_of_a_secret():
    os.utime(SECRET, (1, 1))


@attempt
def change_an_attribute_of_a_secret():
    os.setxattr(SECRET, "user.planted", b"x")


@attempt
def change_the_mode_of_a_readable_file():
    descriptor = os.open(TARGET["readable"], os.O_RDONLY)
    os.fchmod(descriptor, 0o777)


# Network


@attempt
def connect_by_tcp():
    return socket.create_connection(("127.0.0.1", TARGET["tcp"]), timeout=2).send(b"x")


@attempt
def listen_by_tcp():
    return socket.create_server(("127.0.0.1", 0)).getsockname()


@attempt
def send_by_udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        return out.sendto(b"x", ("127.0.0.1", TARGET["udp"]))


@attempt
def connect_to_an_abstract_socket():
    with socket.socket(socket.AF_UNIX) as out:
        out.connect("\0" + TARGET["marker"])
        return "connected"


@attempt
def connect_to_a_socket_of_the_file_system():
    with socket.socket(socket.AF_UNIX) as out:
        out.connect(TARGET["socket"])
        return "connected"


@attempt
def send_from_a_pair_of_datagram_sockets():
    out, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return out.sendto(b"x", "\0" + TARGET["marker"] + "-datagrams")


@attempt
def open_a_netlink_socket():
    return repr(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))


@attempt
def open_a_raw_socket():
    return repr(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))


# Other processes


@attempt
def signal_another_process():
    os.kill(VICTIM, signal.SIGUSR1)


@attempt
def signal_all_processes():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.kill(-1, signal.SIGUSR1)


@attempt
def signal_by_descriptor():
    descriptor = os.pidfd_open(VICTIM)
    signal.pidfd_send_signal(descriptor, signal.SIGUSR1)


@attempt
def limit_another_process():
    resource.prlimit(VICTIM, resource.RLIMIT_NOFILE, (7, 7))
    return "limited"


@attempt
def slow_another_process_down():
    os.setpriority(os.PRIO_PROCESS, VICTIM, 19)
    return "slowed down"


@attempt
def slow_all_processes_of_the_user_down():
    os.setpriority(os.PRIO_USER, 0, 19)
    return "slowed down"


@attempt
def move_another_process_to_a_processor():
    os.sched_setaffinity(VICTIM, {0})
    return "moved"


@attempt
def signal_the_group_of_another_process():
    os.killpg(os.getpgid(VICTIM), 0)  # nothing is sent, but asked whether it may be
    return "may"


@attempt
def trace_the_own_child():
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        return syscall(101, 117, 16, child, 0, 0)  # PTRACE_ATTACH
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@attempt
def take_a_descriptor_of_another_process():
    return syscall(438, 438, os.pidfd_open(VICTIM), 0, 0)


@attempt
def trace_another_process():
    return syscall(101, 117, 16, VICTIM, 0, 0)  # PTRACE_ATTACH


@attempt
def read_the_memory_of_another_process():
    return syscall(310, 270, VICTIM, 0, 0, 0, 0, 0)


@attempt
def end_the_stage():
    if os.getppid() == 1:  # the first process of its namespace takes no such signals
        return 1 / 0
    os.kill(os.getppid(), signal.SIGKILL)
    return "ended"


# The kernel


@attempt
def become_root():
    os.setuid(0)
    return "root"


@attempt
def become_root_by_a_setuid_program():
    for command in (["su", "-c", "id -u"], ["sudo", "-n", "id", "-u"], ["pkexec", "id", "-u"]):
        try:
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.stdout.strip() == b"0":
            return command
    return 1 / 0


@attempt
def execute_from_memory():
    descriptor = libc.syscall(ctypes.c_long(319 if X86 else 279), b"x", 0)  # memfd_create
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "refused")
    os.write(descriptor, Path("/usr/bin/true").read_bytes())
    return syscall(322, 281, descriptor, b"", None, None, 0x1000)  # execveat, AT_EMPTY_PATH


@attempt
def get_capabilities():
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    syscall(125, 90, header, data)
    return list(data) if any(data[0:2]) or any(data[3:5]) else 1 / 0


@attempt
def get_more_privileges_by_execution():
    return "may" if libc.prctl(39, 0, 0, 0, 0) != 1 else 1 / 0  # PR_GET_NO_NEW_PRIVS


@attempt
def unshare_a_user_namespace():
    return syscall(272, 97, 0x10000000)


@attempt
def unshare_by_a_program():
    return subprocess.run(["unshare", "-Ur", "id"], check=True, capture_output=True).stdout.decode()


@attempt
def clone_a_user_namespace():
    result = libc.syscall(ctypes.c_long(56 if X86 else 220), 0x10000011, 0, 0, 0, 0)
    if result == 0:
        os._exit(0)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "cloned"


@attempt
def clone_by_the_newer_call():
    return syscall(435, 435, 0, 0)


@attempt
def mount_a_file_system():
    if libc.mount(b"none", b".", b"tmpfs", 0, None) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "mounted"


@attempt
def change_the_root():
    os.chroot(".")
    return "changed"


@attempt
def open_io_uring():
    return syscall(425, 425, 4, ctypes.create_string_buffer(256))


@attempt
def load_bpf():
    return syscall(321, 280, 0, ctypes.create_string_buffer(128), 128)


@attempt
def use_the_keyring():
    return syscall(250, 219, 0, -3, 1)


@attempt
def handle_page_faults():
    return syscall(323, 282, 1)


@attempt
def measure_the_processor():
    return syscall(298, 241, ctypes.create_string_buffer(128), 0, -1, -1, 0)


@attempt
def make_memory_that_no_limit_counts():
    return os.memfd_create("x")


@attempt
def make_shared_memory():
    return syscall(29, 194, 0, 4096, 0o1600)


@attempt
def use_a_call_of_another_interface():
    return syscall(0x40000000 + 39, 600)


@attempt
def use_a_call_that_is_newer():
    return syscall(467, 467, 0)


@attempt
def raise_a_limit():
    resource.setrlimit(resource.RLIMIT_NPROC, (100_000, 100_000))
    return "raised"


@attempt
def type_into_a_terminal():
    import fcntl

    for name in ("/dev/tty", "/proc/self/fd/0"):
        try:
            fcntl.ioctl(os.open(name, os.O_RDWR), 0x5412, b"x")
        except OSError:
            continue
        return name
    return 1 / 0


@attempt
def type_into_the_own_terminal():
    """Nobody else reads it; that the call is refused shows that it is for all of them."""
    import fcntl

    _, terminal = os.openpty()
    try:
        fcntl.ioctl(terminal, 0x5412, b"x")
    except OSError as error:
        return 1 / 0 if error.errno == errno.EPERM else str(error)
    return "typed"


def main():
    outcomes = {}
    for name, function in ATTEMPTS.items():
        try:
            outcomes[name] = function()
        except (OSError, ValueError, ArithmeticError, subprocess.SubprocessError) as error:
            outcomes[name] = {"stopped": f"{type(error).__name__}: {error}"}
    outcomes["user"] = os.getresuid() + os.getresgid()
    print(json.dumps(outcomes, default=str))


main()
