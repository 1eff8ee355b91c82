"""What the catalogue says over RPC."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from daf_common.channel import raising
from daf_protos.training.v1 import catalog_service_pb2 as pb

if TYPE_CHECKING:
    from .conftest import Stack
else:
    Stack = Any


async def test_the_runners_environment_is_what_workers_really_have(stack: Stack) -> None:
    runner = await raising(stack.catalog.GetRunner(pb.GetRunnerRequest()))

    assert runner.python_version == "3.12"
    assert runner.packages["cogames"] == version("cogames")
    assert runner.packages["torch"] == version("torch").partition("+")[0]
    assert "pytest" not in runner.packages
    assert {"torch", "yaml"} <= set(runner.modules)
    assert runner.platform.startswith("manylinux_2_28_")
