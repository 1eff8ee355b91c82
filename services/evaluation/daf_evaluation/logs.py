"""What processes print, as far as it is kept."""

from __future__ import annotations

from dataclasses import dataclass

KEPT_BYTES = 1 << 20
"""How much of the end of a process's log is kept once its workload is removed."""


@dataclass(frozen=True)
class Log:
    """What a process printed."""

    content: bytes
    skipped: int = 0
    """How many bytes it had printed before that are not kept: who follows a log goes by places in the whole of it."""

    def kept(self) -> Log:
        """What is kept of it."""
        skipped = max(0, len(self.content) - KEPT_BYTES)
        return Log(self.content[skipped:], self.skipped + skipped)
