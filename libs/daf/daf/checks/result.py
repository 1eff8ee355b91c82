"""What checks found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    message: str = ""
    warning: bool = False
    """Whether it passed, but should be known."""

    @property
    def mark(self) -> str:
        """`ok`, `note` or `failed`."""
        return "failed" if not self.passed else "note" if self.warning else "ok"


@dataclass
class EnvironmentCheckResult:
    """What all checks came to. Warnings do not block; errors do."""

    checks: list[Check] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        """What failed."""
        return [f"{check.name}: {check.message}" for check in self.checks if not check.passed]

    @property
    def warnings(self) -> list[str]:
        """What failed, and what passed but should be known."""
        return [f"{check.name}: {check.message}" for check in self.checks if check.warning or not check.passed]

    def add_check(self, name: str, passed: bool, warning: str | None = None, info: str | None = None) -> None:
        """Records a check, with a warning or with what was found."""
        self.checks.append(Check(name, passed, warning or info or "", warning is not None and passed))

    def add_warning(self, name: str, warning: str) -> None:
        """Records a check that passed with something that should be known."""
        self.add_check(name, True, warning=warning)

    def add_error(self, name: str, error_msg: str) -> None:
        """Records a check that failed."""
        self.checks.append(Check(name, False, error_msg))

    def is_healthy(self) -> bool:
        """Whether nothing failed."""
        return all(check.passed for check in self.checks)

    def summary(self) -> str:
        """One line for each check."""
        return "\n".join(f"{check.mark:<8}{check.name}: {check.message}".rstrip(": ") for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data."""
        return {"healthy": self.is_healthy(), "checks": [asdict(check) for check in self.checks]}

    def extend(self, other: EnvironmentCheckResult) -> None:
        """Adds the checks of another result."""
        self.checks.extend(other.checks)
