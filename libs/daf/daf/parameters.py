"""Names of hyperparameters: what users call them, and the full name that says where the value lands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from daf.documents import nearest
from daf.references import HYPERPARAMETER_ALIASES as ALIASES
from daf_common.errors import InvalidArgument
from daf_common.values import Scalar
from daf_protos.training.v1.catalog_service_pb2 import HyperparameterInfo

_PLACES = ("trainer", "env", "policy")
"""Where a name without a place is looked for, in this order."""


class Parameters:
    """The hyperparameters that can be set for one policy."""

    def __init__(
        self,
        known: Iterable[HyperparameterInfo],
        policy_arguments: Collection[str] | None = (),
        refused: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Takes what is known.

        Args:
            known: what the catalogue lists.
            policy_arguments: what else the policy's constructor names; None if only the policy itself can tell.
            refused: why what looks like a hyperparameter cannot be set, by full name.
        """
        known = tuple(known)
        self._refused = refused
        self._open = policy_arguments is None
        self._reals = {info.name for info in known if info.default_value.WhichOneof("kind") == "real"}
        self._names = [info.name for info in known] + [f"policy.{name}" for name in policy_arguments or ()]

    def canonical(self, name: str, field: str) -> str:
        """The full name, for example `trainer.learning_rate` for `lr`; a place that is given wins.

        Raises:
            InvalidArgument: there is no such parameter; says which there are.
        """
        place, dot, rest = name.partition(".")
        if dot:
            full = ALIASES.get(rest, name) if place == "trainer" else name
        else:
            candidates = [ALIASES.get(name, ""), *(f"{place}.{name}" for place in _PLACES)]
            full = next((candidate for candidate in candidates if candidate in self._names), name)
        if full in self._names or (self._open and place == "policy" and rest):
            return full
        note = ""
        if self._open and not dot:
            note = f"; if the policy's constructor takes it, write 'policy.{name}'"
        raise self._unknown(name, field, self._names, note)

    def under(self, place: str, name: str, field: str, elsewhere: str) -> str:
        """The short name of a parameter that has to belong to one place.

        Args:
            place: `trainer` or `policy`.
            name: with or without its place.
            field: what errors name.
            elsewhere: where a parameter of another place is to be written.

        Raises:
            InvalidArgument: there is no such parameter in this place.
        """
        bare = name.removeprefix(f"{place}.")
        full = self.canonical(bare, field) if bare in ALIASES or self._is_elsewhere(place, bare) else f"{place}.{bare}"
        if not full.startswith(f"{place}."):
            raise InvalidArgument.field(field, f"{name!r} is {full}: write it under {elsewhere}")
        if full not in self._names and not (self._open and place == "policy"):
            raise self._unknown(name, field, [known for known in self._names if known.startswith(f"{place}.")])
        return full.partition(".")[2]

    def _is_elsewhere(self, place: str, bare: str) -> bool:
        return f"{place}.{bare}" not in self._names and any(known.endswith(f".{bare}") for known in self._names)

    def _unknown(self, name: str, field: str, known: Sequence[str], note: str = "") -> InvalidArgument:
        bare = name.rpartition(".")[2]
        for full in (name, f"trainer.{bare}", f"policy.{bare}"):
            if full in self._refused:
                return InvalidArgument.field(field, f"{name[:100]} cannot be set: {self._refused[full]}")
        hint = nearest(bare, [*(full.partition(".")[2] for full in known), *ALIASES]) or nearest(name, known)
        listed = ", ".join(known) or "none"
        return InvalidArgument.field(field, f"unknown hyperparameter {name[:100]!r}{hint}{note} (known: {listed})")

    def typed(self, name: str, value: Scalar) -> Scalar:
        """A value as its parameter has it: a whole number becomes real where the default is real."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return float(value) if whole and self.is_real(name) else value

    def is_real(self, name: str) -> bool:
        """Whether a parameter is known to be a real number."""
        return name in self._reals
