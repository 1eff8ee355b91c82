"""Policies and artifacts as messages and back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from packaging.requirements import Requirement

from daf.imports import missing_modules
from daf.missions import OwnMission
from daf.parameters import Parameters
from daf.references import PolicyConfig, StoredArtifact
from daf.requirements import read_requirements
from daf.user_code import UserCode
from daf.wheels import modules_of
from daf_common.bundles import BundleError
from daf_common.errors import InvalidArgument
from daf_common.values import Scalar, scalars, to_value
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.policy_pb2 import Policy, PolicyCheckpoint, PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.training.v1.catalog_service_pb2 import MissionInfo

log = logging.getLogger("daf")


class Resolver(Protocol):
    """What turns references into messages; `daf.resources.Resources` asks the services."""

    def code(self, code: UserCode) -> Artifact: ...

    def wheels(self, requirements: Sequence[Requirement]) -> bytes | None: ...

    def requirements(self, archive: bytes) -> Artifact: ...

    def runner_modules(self) -> frozenset[str]: ...

    def weights(self, path: Path) -> Artifact: ...

    def mission(self, mission: OwnMission) -> Artifact: ...

    def missions(self) -> Sequence[MissionInfo]: ...

    def policy_warnings(self, policy: str) -> Sequence[str]: ...

    def checkpoint(self, name: str) -> PolicyCheckpoint: ...

    def bundle(self, path: Path) -> Artifact: ...

    def version(self, name: str) -> Artifact: ...

    def parameters(self, policy: str, code: UserCode | Artifact | None) -> Parameters: ...


class OwnCode:
    """The code that a document brings along, packed at once, and the packages that it needs; both are uploaded when a
    policy needs them."""

    def __init__(
        self,
        code: list[str] | StoredArtifact | None,
        requirements: str | list[str] | StoredArtifact | None,
        directory: Path,
        resolver: Resolver,
    ) -> None:
        if requirements and not code:
            raise InvalidArgument.field("requirements", "are those of code of your own: name its files with code")
        self._resolver, self._artifact = resolver, artifact_message(code) if isinstance(code, StoredArtifact) else None
        self.packed = (
            UserCode.of(directory / Path(path).expanduser() for path in code) if isinstance(code, list) else None
        )
        self.directory = directory
        self._requirements = artifact_message(requirements) if isinstance(requirements, StoredArtifact) else None
        self._wheels = (
            resolver.wheels(read_requirements(requirements, directory))
            if requirements and not isinstance(requirements, StoredArtifact)
            else None
        )

    @property
    def code(self) -> UserCode | Artifact | None:
        """What is known of it before it is uploaded."""
        return self._artifact if self.packed is None else self.packed

    def has(self, class_path: str) -> bool:
        """Whether a class is in the code that comes along."""
        return self.packed is not None and self.packed.has(class_path)

    def policy_class(self, class_path: str, arguments: Mapping[str, Scalar]) -> PolicyClass:
        """A class with the code and the packages that it needs.

        Raises:
            InvalidArgument: the code imports a module that nobody has.
        """
        self._check_imports(class_path)
        if self.code is None:
            self._check_module(class_path)
            for warning in self._resolver.policy_warnings(class_path):
                log.warning("%s: %s", class_path, warning)
        if self._artifact is None and self.packed is not None:
            self._artifact = self._resolver.code(self.packed)
        if self._requirements is None and self._wheels is not None:
            self._requirements = self._resolver.requirements(self._wheels)
        return PolicyClass(
            class_path=class_path,
            code=self._artifact,
            requirements=self._requirements,
            arguments=values_message(arguments),
        )

    def _check_module(self, class_path: str) -> None:
        module, _, rest = class_path.partition(".")
        modules = self._resolver.runner_modules() if rest else frozenset()
        if modules and module not in modules:
            log.warning("%s: workers may not have the module %r: name its files with code (--code)", class_path, module)

    def _check_imports(self, class_path: str) -> None:
        modules = self._resolver.runner_modules() if self.has(class_path) else frozenset()
        if self.packed is None or not modules or self._requirements is not None:
            return  # what modules there are is not known
        brought = modules_of(self._wheels) if self._wheels is not None else frozenset()
        missing = missing_modules(self.packed.archive, class_path, modules | brought)
        if missing:
            where = "; ".join(f"{one.file}, line {one.line}, imports {one.module}" for one in missing)
            message = f"{where}: workers do not have it. Name the package that has it under requirements"
            raise InvalidArgument.field("code", message)


def policy_message(config: PolicyConfig, field: str, own: OwnCode, resolver: Resolver) -> Policy:
    """A policy as a message.

    Args:
        config: the policy.
        field: what errors name.
        own: the code that the document brings along; a class that is in it takes it.
        resolver: resolves its references.

    Raises:
        DafError: something that it refers to is not there; names the field.
    """
    label = config.label or _label(config)
    if config.version:
        return Policy(label=label, bundle=resolver.version(config.version))
    if config.bundle:
        return Policy(label=label, bundle=_bundle(config.bundle, field, own.directory, resolver))
    if config.policy is None:
        return Policy(label=label, checkpoint=resolver.checkpoint(config.checkpoint or ""))
    if config.code or config.requirements:
        own = OwnCode(config.code, config.requirements, own.directory, resolver)
    elif not own.has(config.policy):
        own = OwnCode(None, None, own.directory, resolver)
    policy_class = own.policy_class(config.policy, config.arguments)
    if config.weights is None:
        return Policy(label=label, policy_class=policy_class)
    if isinstance(config.weights, StoredArtifact):
        weights = artifact_message(config.weights)
    else:
        try:
            weights = resolver.weights(own.directory / Path(config.weights).expanduser())
        except OSError as error:
            raise InvalidArgument.field(field, f"cannot read the weights {config.weights}: {error.strerror}") from error
    return Policy(
        label=label,
        checkpoint=PolicyCheckpoint(policy_class=policy_class, weights=weights, checkpoint=config.checkpoint or ""),
    )


def policy_config(message: Policy) -> PolicyConfig:
    """A policy as documents have it."""
    match message.WhichOneof("source"):
        case "policy_class":
            config = _class_config(message.policy_class)
        case "checkpoint":
            config = _class_config(message.checkpoint.policy_class)
            config.weights = artifact_config(message.checkpoint.weights)
            config.checkpoint = message.checkpoint.checkpoint or None
        case "bundle":
            config = PolicyConfig(bundle=artifact_config(message.bundle))
        case _:
            config = PolicyConfig(version=message.version)
    config.label = message.label if message.label != _label(config) else None
    return config


def make_labels_unique(policies: Iterable[Policy]) -> None:
    """Numbers the labels that several policies have: `random`, `random-2`."""
    taken: set[str] = set()
    for policy in policies:
        label, number = policy.label, 1
        while policy.label in taken:
            number += 1
            policy.label = f"{label}-{number}"
        taken.add(policy.label)


def values_message(values: Mapping[str, Scalar]) -> dict[str, Value]:
    """Settings as messages."""
    return {name: to_value(value) for name, value in values.items()}


def artifact_config(artifact: Artifact) -> StoredArtifact:
    """An artifact as documents have it."""
    return StoredArtifact(
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        media_type=artifact.media_type,
        owner=artifact.owner,
    )


def artifact_message(stored: StoredArtifact) -> Artifact:
    """An artifact as messages have it."""
    return Artifact(
        sha256=stored.sha256, size_bytes=stored.size_bytes, media_type=stored.media_type, owner=stored.owner
    )


def _bundle(bundle: str | StoredArtifact, field: str, directory: Path, resolver: Resolver) -> Artifact:
    if isinstance(bundle, StoredArtifact):
        return artifact_message(bundle)
    try:
        return resolver.bundle(directory / Path(bundle).expanduser())
    except OSError as error:
        raise InvalidArgument.field(field, f"cannot read the bundle {bundle}: {error.strerror}") from error
    except BundleError as error:
        raise InvalidArgument.field(field, f"{bundle} is no bundle of CoGames: {error}") from error


def _label(config: PolicyConfig) -> str:
    """What tables call a policy that has no label."""
    if config.policy:
        name = config.policy.rpartition(".")[2]
        return f"{name}:{Path(config.weights).stem}" if isinstance(config.weights, str) else name
    if config.bundle:
        return Path(config.bundle).stem if isinstance(config.bundle, str) else f"bundle-{config.bundle.sha256[:8]}"
    return (config.checkpoint or config.version or "").partition("/")[2]


def _class_config(message: PolicyClass) -> PolicyConfig:
    return PolicyConfig(
        policy=message.class_path,
        code=artifact_config(message.code) if message.HasField("code") else None,
        requirements=artifact_config(message.requirements) if message.HasField("requirements") else None,
        arguments=scalars(message.arguments),
    )
