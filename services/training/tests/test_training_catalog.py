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


async def test_what_cannot_be_set_is_listed_with_the_reason(stack: Stack) -> None:
    request = pb.ListHyperparametersRequest(policy="lstm")
    answer = await raising(stack.catalog.ListHyperparameters(request))

    listed = {info.name for info in answer.hyperparameters}
    assert "lstm_corrected" in answer.refused["policy.hidden_size"]
    assert "never reads it" in answer.refused["trainer.min_lr_ratio"]
    assert not listed & set(answer.refused)


async def test_the_files_that_a_corrected_policys_checkpoints_need_come_with_it(stack: Stack) -> None:
    policies = (await raising(stack.catalog.ListPolicies(pb.ListPoliciesRequest()))).policies

    sources = {policy.name: policy.sources for policy in policies}
    assert set(sources["lstm_corrected"]) == {"daf_cogames/__init__.py", "daf_cogames/corrected.py"}
    assert "class LSTMPolicy" in sources["lstm_corrected"]["daf_cogames/corrected.py"]
    assert not sources["lstm"]
