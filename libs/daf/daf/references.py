"""How documents and command lines name missions, policies and stored artifacts."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from daf.documents import Scalar, nearest, scalar

HYPERPARAMETER_ALIASES = {
    "lr": "trainer.learning_rate",
    "learning_rate": "trainer.learning_rate",
    "batch_size": "trainer.minibatch_size",
}
"""Other names under which users know hyperparameters, and their full names."""


class Section(BaseModel):
    """A part of a document: unknown keys are errors, types are meant as written, and assignment validates."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        validate_assignment=True,
        revalidate_instances="always",
        allow_inf_nan=False,
        populate_by_name=True,
    )

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.copy()
        try:
            super().__setattr__(name, value)
        except ValidationError:  # pydantic checks the whole after it has assigned
            self.__dict__.update(before)
            raise


def problem_at(location: tuple[str | int, ...], message: str) -> ValidationError:
    """An error at a place of its own, for a validator of a whole model."""
    problem = PydanticCustomError("inconsistent", "{message}", {"message": message})
    return ValidationError.from_exception_data("document", [{"type": problem, "loc": location, "input": None}])


def trainer_name(name: str) -> str:
    """The name of a trainer's hyperparameter without its place, for example `learning_rate` for `lr`."""
    short = name.removeprefix("trainer.")
    return HYPERPARAMETER_ALIASES.get(short, short).removeprefix("trainer.")


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _single(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError("should be a number, a text, true or false")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"should be a finite number, not {value}")
    return value


MAX_INT32, MAX_INT64 = 2**31 - 1, 2**63 - 1

Count = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MAX_INT32)]
"""How many of something; may be written as `1e3`."""

AgentSteps = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MAX_INT64)]
"""Agent steps, of which one agent makes one by acting once; may be written as `1e6`."""

Seed = Annotated[int, Field(ge=0, le=MAX_INT64)]

SingleValue = Annotated[Any, AfterValidator(_single)]
"""A `Scalar`, its type kept as written."""


class StoredArtifact(Section):
    """An object that is in the artifact store already."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(0, ge=0, le=MAX_INT64)
    media_type: str = ""
    owner: str = ""


RequirementsField = str | list[str] | StoredArtifact | None
"""Packages beside those of the runner: a file such as `requirements.txt`, or requirements such as `einops>=0.8`."""


class MissionConfig(Section):
    """A mission, with what changes it. A text stands for a mission without changes."""

    mission: str = Field(min_length=1)
    """Name as `daf missions` lists it; a pattern (`cogsguard_*`) or a set (`diagnostic_evals`), for several;
    or a file of the user's own."""
    variants: list[str] = Field(default_factory=list)
    cogs: Count | None = None
    """Number of agents."""
    max_steps: Count | None = None
    """Environment steps after which an episode ends."""
    difficulty: str | None = None
    map_seed: Seed | None = None
    """Pins the map; otherwise every episode's seed makes its own."""
    file: StoredArtifact | None = None
    """A mission of the user's own that is stored already; `mission` is what tables call it."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        return {"mission": data} if isinstance(data, str) else data

    @model_serializer(mode="wrap")
    def _to_name(self, handler: SerializerFunctionWrapHandler) -> Any:
        data = {key: value for key, value in handler(self).items() if value not in (None, [])}
        return data["mission"] if list(data) == ["mission"] else data


class PolicyConfig(Section):
    """A policy. A text stands for one in the syntax of `parse_policy`."""

    policy: str | None = None
    """Short name, as `daf policies` lists it, or class path."""
    label: str | None = None
    """What tables call it."""
    code: list[str] | StoredArtifact | None = None
    """The user's own files with the class."""
    requirements: RequirementsField = None
    """Packages that this code needs."""
    arguments: dict[str, SingleValue] = Field(default_factory=dict)
    """Named arguments of the constructor."""
    weights: str | StoredArtifact | None = None
    """A PyTorch state dictionary: a file."""
    checkpoint: str | None = None
    """`trainingJobs/NAME/checkpoints/UPDATE` (or `latest`, or `best`), or `sweeps/NAME/trials/NUMBER`; its policy is
    known."""
    bundle: str | StoredArtifact | None = None
    """A CoGames submission bundle, as `cogames create-bundle` makes it: a file `*.zip`."""
    version: str | None = None
    """`policyPackages/NAME/versions/VERSION`."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        return policy_fields(data) if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("policy", "checkpoint", "bundle", "version") if getattr(self, name)]
        if len(given) != 1 and given != ["policy", "checkpoint"]:  # both: weights with where they come from
            raise ValueError("name the policy by exactly one of policy, checkpoint, bundle and version")
        if given == ["policy", "checkpoint"] and self.weights is None:
            raise ValueError("a checkpoint knows its policy: leave the policy out")
        if "policy" not in given and (self.arguments or self.code or self.requirements or self.weights):
            raise ValueError(
                "code, requirements, arguments and weights belong to a policy that is named by its class, "
                f"not to a {given[0]}"
            )
        return self

    @model_serializer(mode="wrap")
    def _to_text(self, handler: SerializerFunctionWrapHandler) -> Any:
        data = {key: value for key, value in handler(self).items() if value not in (None, {})}
        return data["policy"] if list(data) == ["policy"] else data


CHECKPOINT_FORMS = "job/NAME/checkpoints/best (or latest, or UPDATE) or sweeps/NAME/trials/NUMBER"


class StartConfig(PolicyConfig):
    """Weights to start training from. A text stands for a checkpoint's name or a file of weights; without a policy,
    the weights are meant to fit the policy that is trained."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        if is_weights_file(data):
            return {"weights": data}
        if not (_CHECKPOINT.fullmatch(data) or _TRIAL.fullmatch(data) or "=" in data):
            raise ValueError(f"{data[:80]!r} is no checkpoint: write {CHECKPOINT_FORMS}")
        return policy_fields(data)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.bundle or self.version:
            raise ValueError("start from a file of weights or from a checkpoint")
        if not self.weights and not self.checkpoint:
            raise ValueError("there are no weights to start from: name a file of weights, or a checkpoint")
        if (self.policy is None) and (self.code or self.requirements or self.arguments):
            raise ValueError("code, requirements and arguments belong to a policy that is named by its class")
        return self


def is_weights_file(text: str) -> bool:
    """Whether a text says where to start from by the path of a file, and not by a name."""
    return "=" not in text and not text.startswith(("job/", "trainingJobs/", "sweep/", "sweeps/"))


_CHECKPOINT = re.compile(r"(?:job|trainingJobs)/([^/]+)/checkpoints/([^/]+)")
_TRIAL = re.compile(r"sweeps?/([^/]+)/trials/(\d+)")
_PLAIN = re.compile(r"[\w.-]+(:.+)?")
_KEYS = ("class", "data", "kw.NAME", "proportion")


def parse_policy(text: str) -> PolicyConfig:
    """The policy that a text names.

    - `random`, `lstm`: a short name, as `daf policies` lists it;
    - `my_module.MyPolicy`: a class path;
    - `class=X,data=F,kw.k=v`: CoGames' own syntax: class, file of weights, constructor arguments;
    - `PATH.zip`: a submission bundle;
    - `policyPackages/NAME/versions/VERSION`: a bundle that was packaged;
    - `job/NAME/checkpoints/best`, `.../latest` or `.../UPDATE`: what a training job saved;
    - `sweeps/NAME/trials/NUMBER`: what a trial trained.

    Raises:
        ValueError: it is none of these.
    """
    return PolicyConfig.model_validate(policy_fields(text))


def policy_fields(text: str) -> dict[str, Any]:
    """The fields of `PolicyConfig` that a text stands for; see `parse_policy`."""
    if match := _CHECKPOINT.fullmatch(text):
        return {"checkpoint": f"trainingJobs/{match[1]}/checkpoints/{match[2]}"}
    if match := _TRIAL.fullmatch(text):
        return {"checkpoint": f"sweeps/{match[1]}/trials/{match[2]}"}
    if text.startswith("policyPackages/"):
        return {"version": text}
    if text.endswith(".zip") and not text.startswith("class="):
        return {"bundle": text}
    if "=" in text:
        return _from_pairs(text)
    if not is_weights_file(text):
        raise ValueError(f"{text[:80]!r} is no checkpoint: write {CHECKPOINT_FORMS}")
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is neither a policy's short name nor a class path nor class=X,data=F,kw.k=v")
    policy, _, weights = text.partition(":")
    return {"policy": policy, **({"weights": weights} if weights else {})}


def proportion_of(text: str) -> tuple[str, float | None]:
    """CoGames' syntax without its `proportion=N`, and that number.

    Raises:
        ValueError: the proportion is no number.
    """
    kept, proportion = [], None
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key.strip() == "proportion":
            proportion = float(value)
        else:
            kept.append(part)
    return ",".join(kept), proportion


def _from_pairs(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    arguments: dict[str, Scalar] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ValueError(f"{part[:80]!r} in {text[:80]!r} is not KEY=VALUE")
        match key.split(".", 1):
            case ["class"]:
                fields["policy"] = value
            case ["data"]:
                fields["weights"] = value
            case ["kw", name]:
                arguments[name] = scalar(value)
            case _:
                raise ValueError(f"{key[:40]!r} is not one of {', '.join(_KEYS)}{nearest(key, _KEYS)}")
    if "policy" not in fields:
        raise ValueError(f"{text[:80]!r} names no class: begin with class=CLASS")
    return {**fields, **({"arguments": arguments} if arguments else {})}
