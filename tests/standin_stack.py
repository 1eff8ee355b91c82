"""The whole stack with stand-in compute; as a program (`python -m tests.standin_stack`), to be killed by tests."""

from __future__ import annotations

import os

from daf_common.service import Context, Host, run
from daf_common.settings import ServiceSettings
from daf_standalone.settings import Home
from daf_standalone.stack import Backends, build, embedded_settings
from tests.standin import StandIn


def standin_host(home: Home, backends: Backends | None = None) -> Host:
    """All five services in this process."""
    home.create()
    settings = embedded_settings(home)
    settings.drain_seconds = 0
    context = Context(settings)
    return Host(context, build(context, backends or Backends(StandIn(0), StandIn())))


def main() -> None:
    """Serves the home that `DAF_HOME` names until SIGTERM."""
    home = Home(ServiceSettings().home)
    home.create()
    home.socket().unlink(missing_ok=True)
    settings = embedded_settings(home)
    seconds = float(os.environ.get("DAF_STANDIN_SECONDS", "0.01"))
    run(settings, lambda context: build(context, Backends(StandIn(seconds), StandIn())))


if __name__ == "__main__":
    main()
