"""`python -m daf_standalone`: the embedded stack in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import fcntl
import os
import sys

from daf_common.service import run
from daf_common.settings import ServiceSettings
from daf_standalone.settings import Home
from daf_standalone.stack import build, embedded_settings, from_here, local_backends


def main() -> None:
    """Serves all five services; a second process on the same home ends at once."""
    home = Home(ServiceSettings().home)
    home.create()
    lock = home.lock.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another stack runs in {home.directory}: stop it with `daf down`")
    home.pid.write_text(f"{os.getpid()}\n")
    home.socket().unlink(missing_ok=True)  # left by a stack that was killed; the lock says that none runs
    settings = embedded_settings(home)
    address = from_here(settings.listen)
    home.address.write_text(f"{address}\n" if address.startswith("unix:") else f"http://{address}\n")
    run(settings, lambda context: build(context, local_backends(home)))


if __name__ == "__main__":
    main()
