"""The cluster that KUBECONFIG names, and the images that E2E_IMAGE_PREFIX and E2E_IMAGE_TAG name; see `make e2e`.

E2E_KEEP=1 keeps what was installed, and E2E_NAMESPACE goes on with it: for whoever works on one of these tests.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import Cluster, cluster
from tests.e2e_cluster.installation import Backing, Installation
from tests.e2e_cluster.release import CHART

__all__ = ["cluster"]


@dataclass(frozen=True)
class Version:
    """A version of the product: its chart, and the tag of its images."""

    chart: Path
    tag: str


@pytest.fixture(scope="session")
def image_prefix() -> str:
    prefix = os.environ.get("E2E_IMAGE_PREFIX")
    if not prefix:
        pytest.skip("NO IMAGES: E2E_IMAGE_PREFIX does not say where the cluster gets them; `make e2e` does")
    return prefix


@pytest.fixture(scope="session")
def current(image_prefix: str) -> Version:
    return Version(CHART, os.environ["E2E_IMAGE_TAG"])


@pytest.fixture(scope="session")
def earlier(image_prefix: str) -> Version:
    """A version before this one, of which everything is there: chart, images, migrations."""
    source = os.environ.get("E2E_EARLIER_SOURCE")
    if not source:
        pytest.skip("NO EARLIER VERSION: E2E_EARLIER_SOURCE names none (is this a shallow clone?)")
    return Version(Path(source) / "deploy" / "helm" / "daf", os.environ["E2E_EARLIER_TAG"])


@pytest.fixture(scope="session")
def backing(cluster: Cluster, image_prefix: str, current: Version) -> Iterator[Backing]:
    namespace = os.environ.get("E2E_NAMESPACE") or f"daf-e2e-{uuid.uuid4().hex[:6]}"
    made = Backing(f"{namespace}-backing", f"{image_prefix}/daf-test-backing:{current.tag}")
    try:
        if not os.environ.get("E2E_NAMESPACE"):
            made.create()
        yield made
    finally:
        if not os.environ.get("E2E_KEEP"):
            made.delete()


@pytest.fixture(scope="session")
def installation(
    backing: Backing, image_prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The release that all tests share; the first of them installs it."""
    namespace = backing.namespace.removesuffix("-backing")
    made = Installation(tmp_path_factory.mktemp("clients"), namespace, image_prefix, backing)
    try:
        if not os.environ.get("E2E_NAMESPACE"):
            made.prepare()
        yield made
    finally:
        if not os.environ.get("E2E_KEEP"):
            made.delete()


@pytest.fixture(scope="module")
def installed(installation: Installation, current: Version) -> Installation:
    """The current version, also where there is no earlier one to begin with."""
    installation.upgrade(current.chart, current.tag)
    return installation
