"""What the process of a foreign policy gives up before it runs a line of it.

Every measure that the kernel refuses is left out, so that what is enforced depends on the machine: `Enforced` says it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from daf_cogames.sandbox import landlock, seccomp
from daf_cogames.sandbox.system_calls import (
    CAP_DAC_READ_SEARCH,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    PR_SET_KEEPCAPS,
    PR_SET_PDEATHSIG,
    SUPPORTED,
    keep_capabilities,
    mount_scratch,
    prctl,
    unshare,
)

NOBODY = 65534

MAX_FILE_BYTES = 64 << 20
MAX_OPEN_FILES = 256
MAX_THREADS = 512
SCRATCH_BYTES = 1 << 30
"""What all policies of a worker may write together, where that can be limited."""

_NICENESS = 5

_DEVICES = tuple(map(Path, ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")))
_LIBRARIES = tuple(
    map(
        Path,
        (
            *("/usr", "/lib", "/lib64", "/lib32", "/bin"),
            *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"),
            *("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"),
        ),
    )
)


@dataclass(frozen=True)
class Enforced:
    """What holds for the processes of policies on this machine.

    files: only those that a policy needs can be opened (Landlock's version, 0: any that the user can open); calls: no
    sockets, no other processes; network: a network of its own, without interfaces; scratch: what is written is limited
    in size; user: whose rights it has.
    """

    files: int
    calls: bool
    network: bool
    scratch: bool
    user: str

    @property
    def gaps(self) -> list[str]:
        """What is not enforced, for a log."""
        return [
            *([] if self.files else ["the user's files and processes are not hidden (no Landlock)"]),
            *([] if self.calls else ["other processes can be started (no seccomp)"]),
            *([] if self.network or self.calls else ["the network can be reached"]),
            *([] if self.scratch else ["the size of what is written is limited by file only"]),
        ]


def enter_namespaces(scratch: Path) -> Enforced:
    """Moves this process, which has no threads yet, and what it forks into namespaces of their own, if it may.

    Args:
        scratch: an empty directory, on which a file system of a limited size is mounted.
    """
    network = mounted = False
    if SUPPORTED:
        user, group = os.getuid(), os.getgid()
        try:
            unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | (CLONE_NEWUSER if user else 0))
        except OSError:
            pass
        else:
            network = True
            if user:  # root needs no namespace of users to make the others
                Path("/proc/self/setgroups").write_text("deny")
                Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
                Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            with contextlib.suppress(OSError):
                mount_scratch(scratch, SCRATCH_BYTES)
                mounted = True
    files = landlock.version()
    return Enforced(files, seccomp.available(), network, mounted, "nobody" if _becomes_nobody(files) else "the user")


def confine(enforced: Enforced, parent: int, readable: Iterable[Path], scratch: Path, memory_bytes: int) -> None:
    """Gives up, for good, all that a policy does not need. This process was just forked, and has one thread.

    Args:
        enforced: what can be enforced.
        parent: the process that it was forked from.
        readable: what the policy may read, beside Python's own files.
        scratch: the directory that it may write to; it becomes its own.
        memory_bytes: how much more it may take than it has now.

    Raises:
        OSError: what the machine can enforce is not enforced.
    """
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # goes first, should memory run out
    _limit(memory_bytes)
    _drop_user(scratch, enforced)
    die_with_parent(parent)  # a change of the user takes that off
    if enforced.files:
        landlock.restrict_files([*_python(), *_LIBRARIES, *readable], [scratch], _DEVICES)
    if enforced.calls:
        seccomp.forbid_calls()


def die_with_parent(parent: int) -> None:
    """From now on, this process is killed when the one ends that started it, whose number is told."""
    if SUPPORTED:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _limit(memory_bytes: int) -> None:
    taken = 0
    with contextlib.suppress(OSError):
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for limit, value in (
        (resource.RLIMIT_AS, taken + memory_bytes),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):  # macOS knows no limit of the address space
            resource.setrlimit(limit, (value, value))


def _drop_user(scratch: Path, enforced: Enforced) -> None:
    if not SUPPORTED:
        return
    if not _becomes_nobody(enforced.files):
        keep_capabilities()
        return
    resource.setrlimit(resource.RLIMIT_NPROC, (MAX_THREADS, MAX_THREADS))
    os.chown(scratch, NOBODY, NOBODY)
    prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    # Python and the policy may lie where only root can go; Landlock says what of it is opened.
    keep_capabilities(CAP_DAC_READ_SEARCH)


def _becomes_nobody(landlock_version: int) -> bool:
    return SUPPORTED and os.getuid() == 0 and landlock_version > 0


def _python() -> Sequence[Path]:
    """What the interpreter reads: its installations and its path."""
    return [Path(path).resolve() for path in {sys.prefix, sys.base_prefix, *sys.path} if path and os.path.exists(path)]
