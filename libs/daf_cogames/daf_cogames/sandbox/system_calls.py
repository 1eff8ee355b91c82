"""System calls of Linux that Python has no function for."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

SUPPORTED = sys.platform == "linux"

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 8, 22, 38

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x40000000

CAP_DAC_READ_SEARCH = 2

_CAPABILITY_VERSION = 0x20080522
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x4000, 0x40000


def prctl(option: int, *arguments: int | ctypes.Array[ctypes.c_char] | ctypes.Structure) -> None:
    """`prctl(2)`. Raises OSError."""
    _check(_libc().prctl(option, *map(_argument, arguments)))


def system_call(number: int, *arguments: int | ctypes.Structure | None) -> int:
    """A system call by its number. Raises OSError."""
    return _check(_libc().syscall(ctypes.c_long(number), *map(_argument, arguments)))


def unshare(flags: int) -> None:
    """`unshare(2)`. Raises OSError."""
    _check(_libc().unshare(ctypes.c_int(flags)))


def mount_scratch(directory: Path, size_bytes: int) -> None:
    """Mounts a file system of a limited size in memory, seen in the caller's mount namespace alone. Raises OSError."""
    libc = _libc()
    _check(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    options = f"size={size_bytes},nr_inodes=100000,mode=711".encode()
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
    _check(libc.mount(b"scratch", os.fsencode(directory), b"tmpfs", flags, options))


def keep_capabilities(*capabilities: int) -> None:
    """Gives up all capabilities but these, for good. Raises OSError."""
    kept = sum(1 << capability for capability in capabilities)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    data = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; then those from 32 on
    _check(_libc().capset(header, data))


def _argument(value: object) -> object:
    match value:
        case int():
            return ctypes.c_ulong(value)
        case ctypes.Structure():
            return ctypes.byref(value)
    return value


def _check(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
