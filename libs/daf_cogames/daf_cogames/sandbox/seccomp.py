"""Seccomp: system calls that a process gives up, for itself and all that it starts.

What is given up fails with EPERM: a policy that tries sees a PermissionError and may go on without. This asks for no
right of the machine, and works in containers that allow no namespaces.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

from daf_cogames.sandbox.system_calls import PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SUPPORTED, prctl

_X86, _ARM = "x86_64", "aarch64"
_AUDIT = {_X86: 0xC000003E, _ARM: 0xC00000B7}
_X32_BIT = 0x40000000

# By name, the numbers on x86_64 and aarch64; None where a machine has no such call.
_FORBIDDEN: dict[str, tuple[int | None, int]] = {
    # The network, and the sockets of this machine's services.
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept4": (288, 242),
    # Does what is forbidden here behind the filter's back.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # Other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    # Processes of its own: what is one process ends as a whole.
    "execve": (59, 221),
    "execveat": (322, 281),
    # What outlives a process, or is memory that no limit counts.
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # The kernel.
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "syslog": (103, 116),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    # Namespaces and mounts, and files by handle, which no path leads to.
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
}

# Metadata of any file that the user owns, which Landlock does not guard. Programs that copy files set it; so nothing
# happens, and they hear that it went well.
_IGNORED: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
}

# Of these, the first argument names a process: only its own, as a number or as 0.
_OF_ITSELF = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
}
_OF_CALLER = {"sched_setaffinity": (203, 122), "prlimit64": (302, 261)}

_FORKS: dict[str, tuple[int | None, int | None]] = {"fork": (57, None), "vfork": (58, None)}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_CLONE_THREAD = 0x00010000
_SOCKETPAIR = (53, 199)
_SOCK_TYPE_MASK, _SOCK_STREAM = 0xF, 1

_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_GREATER_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x54, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in what the filter sees; a low half comes first
_FILTER_MODE = 2

type _Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def available() -> bool:
    """Whether calls can be given up on this machine."""
    return SUPPORTED and platform.machine() in _AUDIT and os.path.exists("/proc/sys/kernel/seccomp/actions_avail")


def forbid_calls() -> None:
    """Gives up, for good: sockets, other processes and new ones, the metadata of files, the kernel's administration.

    Threads can be started, and signals sent to oneself. Raises OSError.
    """
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _filter(platform.machine(), os.getpid()))
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    prctl(PR_SET_SECCOMP, _FILTER_MODE, _Program(len(program) // 8, program))


def _filter(machine: str, process: int) -> Iterator[_Instruction]:
    column = (_X86, _ARM).index(machine)
    refuse, pretend = _ERROR | errno.EPERM, _ERROR
    yield _LOAD, 0, 0, _ARCHITECTURE
    yield _JUMP_EQUAL, 1, 0, _AUDIT[machine]
    yield _RETURN, 0, 0, refuse
    yield _LOAD, 0, 0, _NUMBER
    if machine == _X86:
        yield _JUMP_GREATER_EQUAL, 0, 1, _X32_BIT
        yield _RETURN, 0, 0, refuse
    for calls, answer in (({**_FORBIDDEN, **_FORKS}, refuse), (_IGNORED, pretend)):
        for numbers in calls.values():
            if (number := numbers[column]) is not None:
                yield _JUMP_EQUAL, 0, 1, number
                yield _RETURN, 0, 0, answer
    # glibc then falls back to clone, whose flags a filter can see.
    yield _JUMP_EQUAL, 0, 1, _CLONE3[column]
    yield _RETURN, 0, 0, _ERROR | errno.ENOSYS
    yield from _unless(_CLONE[column], 0, [(_JUMP_SET, 1, 0, _CLONE_THREAD)])
    # Datagrams could be sent to a path.
    stream = [(_AND, 0, 0, _SOCK_TYPE_MASK), (_JUMP_EQUAL, 1, 0, _SOCK_STREAM)]
    yield from _unless(_SOCKETPAIR[column], 1, stream)
    for numbers in _OF_ITSELF.values():
        yield from _unless(numbers[column], 0, [(_JUMP_EQUAL, 1, 0, process)])
    for numbers in _OF_CALLER.values():
        yield from _unless(numbers[column], 0, [(_JUMP_EQUAL, 2, 0, process), (_JUMP_EQUAL, 1, 0, 0)])
    yield _RETURN, 0, 0, _ALLOW


def _unless(number: int, argument: int, condition: list[_Instruction]) -> Iterator[_Instruction]:
    """Refuses a call unless the low half of one of its arguments meets a condition, whose jumps skip the refusal."""
    yield _JUMP_EQUAL, 0, len(condition) + 3, number
    yield _LOAD, 0, 0, _ARGUMENTS + 8 * argument
    yield from condition
    yield _RETURN, 0, 0, _ERROR | errno.EPERM
    yield _RETURN, 0, 0, _ALLOW
