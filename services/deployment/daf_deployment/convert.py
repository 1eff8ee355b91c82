"""Requests of the deployment service, checked, and rows to responses."""

from __future__ import annotations

import re
from collections.abc import Iterator

from daf_common import ids, names
from daf_common.artifacts import check_artifact
from daf_common.errors import InvalidArgument, Violation
from daf_deployment.store import Package
from daf_protos.deployment.v1.deployment_service_pb2 import CreatePolicyVersionRequest
from daf_protos.deployment.v1.package_pb2 import Lineage, PolicyPackage, PolicyVersion

UPLOADER = "deployment"
"""The owner of what users upload."""

MAX_DESCRIPTION, MAX_IMAGE, MAX_VERSION = 4000, 300, 64
"""Characters."""

_NUMBER = r"(0|[1-9]\d*)"
_PRE_RELEASE = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_BUILD = r"[0-9a-zA-Z-]+"
_SEMANTIC_VERSION = re.compile(  # https://semver.org
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE_RELEASE}(\.{_PRE_RELEASE})*)?(\+{_BUILD}(\.{_BUILD})*)?", re.ASCII
)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def check_create_version(request: CreatePolicyVersionRequest) -> None:
    """Checks all of a request but the bundle's content.

    Raises:
        InvalidArgument: names all fields that are wrong.
    """
    violations = [*_violations(request), *_lineage_violations(request.lineage)]
    if violations:
        raise InvalidArgument.of(violations)


def package_message(package: Package) -> PolicyPackage:
    """A package for the wire."""
    message = PolicyPackage(
        name=names.POLICY_PACKAGE.format(package.id),
        description=package.description,
        latest=PolicyVersion.FromString(package.latest),
        creator=package.creator,
        revision=package.revision,
    )
    message.create_time.FromDatetime(package.create_time)
    return message


def _violations(request: CreatePolicyVersionRequest) -> Iterator[Violation]:
    if not ids.is_valid(request.package_id):
        yield Violation(
            "package_id", f"use at most {ids.MAX_LENGTH} of a-z, 0-9 and -, starting with a letter and not ending in -"
        )
    if len(request.version) > MAX_VERSION or not _SEMANTIC_VERSION.fullmatch(request.version):
        yield Violation("version", "is not a semantic version such as 1.2.0 or 1.2.0-rc.1")
    if len(request.description) > MAX_DESCRIPTION or "\0" in request.description:
        yield Violation("description", f"use at most {MAX_DESCRIPTION} characters, none of them NUL")
    try:
        check_artifact(request.bundle, "bundle")
    except InvalidArgument as error:
        yield from error.violations
    else:
        if request.bundle.owner != UPLOADER:
            yield Violation("bundle.owner", f"{request.bundle.owner!r} is not {UPLOADER}: upload the bundle first")


def _lineage_violations(lineage: Lineage) -> Iterator[Violation]:
    for field, kind in (("sweep", names.SWEEP), ("trial", names.TRIAL), ("checkpoint", names.CHECKPOINT)):
        try:
            if name := getattr(lineage, field):
                kind.parse(name, f"lineage.{field}")
        except InvalidArgument as error:
            yield from error.violations
    if lineage.code_sha256 and not _SHA256.fullmatch(lineage.code_sha256):
        yield Violation("lineage.code_sha256", "use 64 lower-case hexadecimal digits")
    if len(lineage.image) > MAX_IMAGE or not lineage.image.isprintable():
        yield Violation("lineage.image", f"use at most {MAX_IMAGE} printable characters")
    if lineage.seed < 0:
        yield Violation("lineage.seed", f"{lineage.seed} is negative")
