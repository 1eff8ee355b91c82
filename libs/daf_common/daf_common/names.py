"""Resource names: the one place that formats and parses them."""

from __future__ import annotations

from dataclasses import dataclass

from daf_common import ids
from daf_common.errors import InvalidArgument


@dataclass(frozen=True)
class Kind:
    """A kind of resource name: `collection/{id}`, below a parent or not."""

    pattern: str
    """For example `sweeps/{sweep}/trials/{number}`."""
    numbered: bool = False
    """Whether the last segment is a number instead of an id."""

    def format(self, *segments: str | int) -> str:
        """The name with these ids."""
        parts = self.pattern.split("/")
        values = iter(segments)
        return "/".join(str(next(values)) if part.startswith("{") else part for part in parts)

    def parse(self, name: str, field: str = "name") -> tuple[str, ...]:
        """The ids in a name.

        Raises:
            InvalidArgument: the name is not of this kind; names the field.
        """
        parts, given = self.pattern.split("/"), name.split("/") if len(name) <= 200 else []
        found = []
        for index, part in enumerate(parts):
            value = given[index] if index < len(given) else ""
            if not part.startswith("{"):
                matches = value == part
            else:
                last = index == len(parts) - 1
                matches = _is_number(value) if self.numbered and last else _is_segment(part, value)
                found.append(value)
            if not matches or len(given) != len(parts):
                shown = name if len(name) <= 80 else name[:77] + "..."
                raise InvalidArgument.field(field, f"{shown!r} is not a name like {self.pattern}")
        return tuple(found)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18 and str(int(text)) == text


def _is_segment(part: str, text: str) -> bool:
    if part == "{version}":
        return 0 < len(text) <= 64 and all(c.isascii() and (c.isalnum() or c in ".-+") for c in text)
    return ids.is_valid(text)


SWEEP = Kind("sweeps/{sweep}")
TRIAL = Kind("sweeps/{sweep}/trials/{number}", numbered=True)
PIPELINE = Kind("pipelines/{pipeline}")
TRAINING_JOB = Kind("trainingJobs/{job}")
CHECKPOINT = Kind("trainingJobs/{job}/checkpoints/{update}", numbered=True)
EVALUATION = Kind("evaluations/{evaluation}")
COMPARISON = Kind("comparisons/{comparison}")
POLICY_PACKAGE = Kind("policyPackages/{package}")
POLICY_VERSION = Kind("policyPackages/{package}/versions/{version}")
DEPLOYMENT = Kind("deployments/{deployment}")


def new_id(given: str, prefix: str, source: ids.Ids, field: str) -> str:
    """The id that a user gave, checked, or a new one.

    Raises:
        InvalidArgument: the given id cannot be used; names the field.
    """
    if not given:
        return source.new(prefix)
    if not ids.is_valid(given):
        shown = given if len(given) <= 60 else given[:57] + "..."
        raise InvalidArgument.field(
            field, f"{shown!r} is not an id: use at most {ids.MAX_LENGTH} of a-z, 0-9 and -, starting with a letter"
        )
    return given
