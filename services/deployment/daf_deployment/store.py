"""The tables of the deployment service, and the only SQL that reads and writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message

from daf_common import requests
from daf_common.errors import AlreadyExists
from daf_common.store import Transaction, insert_or_ignore, revision_column

MIGRATIONS = Path(__file__).parent / "migrations"

TABLES = sa.MetaData()

PACKAGES = sa.Table(
    "packages",
    TABLES,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("creator", sa.String(200), nullable=False),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    revision_column(),
    info={"key": "id"},
)
"""`number` counts in the order of creation, whatever the clock says."""

VERSIONS = sa.Table(
    "versions",
    TABLES,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("package", sa.String(40), sa.ForeignKey("packages.id"), nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("message", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("package", "version"),
)
"""`message` is the serialized `PolicyVersion`, which never changes."""


@dataclass(frozen=True)
class Package:
    """A package as it is stored, with its newest version's message."""

    number: int
    id: str
    description: str
    creator: str
    create_time: datetime
    revision: int
    latest: bytes


@dataclass(frozen=True)
class Version:
    """A version as it is stored."""

    number: int
    message: bytes


def create_version(
    tx: Transaction,
    request: Message,
    request_id: str,
    package: dict[str, Any],
    version: str,
    message: bytes,
) -> Version:
    """Adds a version, and its package if there is none; the same request adds it once.

    Args:
        tx: the transaction.
        request: the whole request, for `requests.once`.
        request_id: see `requests.once`.
        package: the columns of the package, if it is to be created; a description replaces that of one that is there.
        version: the semantic version.
        message: the serialized `PolicyVersion`.

    Raises:
        AlreadyExists: the package has such a version, or the request id was used for another request.
    """
    dialect, id = tx.connection.dialect.name, package["id"]
    tx.execute(insert_or_ignore(dialect, PACKAGES, [package]))
    # Held to the end, so that the same request at the same time waits here and then finds what this one has done.
    tx.execute(sa.select(PACKAGES.c.id).where(PACKAGES.c.id == id).with_for_update())

    def create() -> str:
        if get_version(tx, id, version):
            raise AlreadyExists(f"policyPackages/{id} has a version {version}: versions never change, choose a new one")
        tx.execute(sa.insert(VERSIONS).values(package=id, version=version, message=message))
        if package["description"]:
            description = sa.update(PACKAGES).where(PACKAGES.c.id == id).values(description=package["description"])
            tx.execute(description)
        tx.changed(PACKAGES, id)
        return version

    requests.forget(tx, package["create_time"])
    requests.once(tx, "CreatePolicyVersion", request_id, request, package["create_time"], create)
    created = get_version(tx, id, version)
    assert created is not None
    return created


def get_version(tx: Transaction, package: str, version: str) -> Version | None:
    """One version of a package."""
    query = sa.select(VERSIONS.c.number, VERSIONS.c.message).where(
        VERSIONS.c.package == package, VERSIONS.c.version == version
    )
    row = tx.execute(query).first()
    return Version(row.number, row.message) if row else None


def page_of_versions(tx: Transaction, package: str, before: int | None, limit: int) -> list[Version] | None:
    """Versions of a package, newest first, from before a number; None if there is no such package."""
    if tx.execute(sa.select(PACKAGES.c.id).where(PACKAGES.c.id == package)).first() is None:
        return None
    query = sa.select(VERSIONS.c.number, VERSIONS.c.message).where(VERSIONS.c.package == package)
    if before is not None:
        query = query.where(VERSIONS.c.number < before)
    rows = tx.execute(query.order_by(VERSIONS.c.number.desc()).limit(limit))
    return [Version(row.number, row.message) for row in rows]


def get_package(tx: Transaction, id: str) -> Package | None:
    """One package."""
    found = _packages(tx, lambda query: query.where(PACKAGES.c.id == id))
    return found[0] if found else None


def page_of_packages(tx: Transaction, before: int | None, limit: int) -> Sequence[Package]:
    """Packages, newest first, from before a number."""

    def narrow(query: sa.Select[Any]) -> sa.Select[Any]:
        query = query.order_by(PACKAGES.c.number.desc()).limit(limit)
        return query if before is None else query.where(PACKAGES.c.number < before)

    return _packages(tx, narrow)


def _packages(tx: Transaction, narrow: Callable[[sa.Select[Any]], sa.Select[Any]]) -> list[Package]:
    others = VERSIONS.alias()
    newest = sa.select(sa.func.max(others.c.number)).where(others.c.package == PACKAGES.c.id).scalar_subquery()
    both = PACKAGES.join(VERSIONS, VERSIONS.c.number == newest)
    query = sa.select(PACKAGES, VERSIONS.c.message.label("latest")).select_from(both)
    return [Package(**row._mapping) for row in tx.execute(narrow(query))]
