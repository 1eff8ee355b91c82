"""The login for the tournament's server."""

from __future__ import annotations

from daf.checks.probe import NO_RUNNER, ProbeError, ask, has_runner
from daf.checks.result import EnvironmentCheckResult


def daf_check_auth() -> EnvironmentCheckResult:
    """Looks whether `cogames auth login` has stored a login here; nothing of it is shown, and no server is asked. Only
    submitting to the tournament needs one, so it is never an error that there is none."""
    result = EnvironmentCheckResult()
    if not has_runner():
        result.add_warning("sign-in", NO_RUNNER)
        return result
    try:
        found = ask("sign_in")
    except ProbeError as error:
        result.add_warning("sign-in", str(error))
        return result
    if found["signed_in"]:
        result.add_check("sign-in", True, info=f"a login for {found['server']} is stored here")
    else:
        result.add_warning("sign-in", "no login is stored here: submitting needs one, from `cogames auth login`")
    return result
