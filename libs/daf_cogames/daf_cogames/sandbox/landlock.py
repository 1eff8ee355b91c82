"""Landlock: the kernel's way of letting a process give up files, TCP and signals, for itself and all that it starts.

Neither a user's rights nor root's count against it. It does not reach what is not opened (metadata may still be seen,
and changed by whoever may), nor sockets other than TCP: `daf_cogames.sandbox.seccomp` does. It also keeps a process
from tracing any that is not confined as it is, and so from reading their memory and environment.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from daf_cogames.sandbox.system_calls import PR_SET_NO_NEW_PRIVS, SUPPORTED, prctl, system_call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIRECTORY = 1 << 1, 1 << 2, 1 << 3
_DEVICES = 1 << 6 | 1 << 11  # making character and block devices
_SOCKETS = 1 << 9
_TRUNCATE, _DEVICE_IOCTL = 1 << 14, 1 << 15
_OF_FILES = 1 << 0 | _WRITE_FILE | _READ_FILE | _TRUNCATE | _DEVICE_IOCTL
_READ = _READ_FILE | _READ_DIRECTORY

# How many rights over files each version of the interface knows.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP, _TCP_SINCE = 0b11, 4
_SCOPES, _SCOPES_SINCE = 0b11, 6  # abstract sockets and signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("directory", ctypes.c_int32))


def version() -> int:
    """The version of the kernel's interface; 0 where there is none."""
    if not SUPPORTED:
        return 0
    try:
        return system_call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict_files(readable: Iterable[Path], writable: Iterable[Path], devices: Iterable[Path] = ()) -> None:
    """Gives up, for good, all files but these and what is beneath them; also TCP, and signals to others.

    Args:
        readable: to read.
        writable: directories to read, write and make files in.
        devices: single files to read and write.

    Raises:
        OSError: the kernel does not do it.
    """
    known = version()
    files = (1 << _RIGHTS.get(known, max(_RIGHTS.values()))) - 1
    ruleset = _Ruleset(files, _TCP if known >= _TCP_SINCE else 0, _SCOPES if known >= _SCOPES_SINCE else 0)
    size = 24 if known >= _SCOPES_SINCE else 16 if known >= _TCP_SINCE else 8
    descriptor = system_call(_CREATE_RULESET, ruleset, size, 0)
    try:
        for paths, allowed in (
            (readable, _READ),
            (writable, files & ~(1 | _DEVICES | _SOCKETS)),
            (devices, _READ_FILE | _WRITE_FILE),
        ):
            for path in paths:
                _allow(descriptor, path, allowed & files)
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        system_call(_RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)


def _allow(ruleset: int, path: Path, allowed: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            allowed &= _OF_FILES
        system_call(_ADD_RULE, ruleset, _PATH_BENEATH, _Beneath(allowed, beneath), 0)
    finally:
        os.close(beneath)
