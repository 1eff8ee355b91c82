"""What the Python environment of runners finds on this machine: devices, memory, a login, the size of a policy.

`python -m daf_cogames.probe` reads one JSON object from stdin, `{subject: question}`, and writes one to stdout,
`{subject: answer}`. A subject that fails is answered with `{"problem": "..."}`; the others are not affected. It is a
process of its own because a client imports neither torch nor CoGames, and because both take seconds to import.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daf_cogames.catalog import check_mission, resolve_mission, resolve_policy
from daf_cogames.training.cores import usable_cores
from daf_common.machine import CGROUPS, memory_limit, memory_used, usable_memory

if TYPE_CHECKING:
    from daf_cogames.missions import Mission

type Question = Mapping[str, Any]
type Answer = dict[str, Any]


def main() -> int:
    """Answers the questions of stdin."""
    questions: dict[str, Question] = json.load(sys.stdin)
    answer_to, sys.stdout = sys.stdout, sys.stderr  # what is imported may print
    json.dump({subject: _answered(SUBJECTS[subject], question) for subject, question in questions.items()}, answer_to)
    return 0


def machine(_: Question, cgroups: Path = CGROUPS) -> Answer:
    """Cores and memory that this process may use, in bytes."""
    import psutil

    memory = psutil.virtual_memory()
    limit, used = memory_limit(cgroups), memory_used(cgroups)
    available = memory.available if limit is None else min(memory.available, max(0, limit - (used or 0)))
    return {
        "cores": usable_cores(cgroups),
        "memory_bytes": usable_memory(cgroups),
        "available_bytes": available,
    }


def device(_: Question) -> Answer:
    """Where training would run by `cogames.device`, and what torch finds of CUDA and NCCL. Every GPU is used for an
    instant, so that one that is there and does not work is a problem."""
    import torch
    from cogames.device import resolve_training_device
    from rich.console import Console

    recommended = resolve_training_device(Console(file=io.StringIO()), "auto").type
    found: Answer = {
        "recommended": recommended,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "nccl": _nccl_version(),
        "gpus": [],
    }
    for number in range(torch.cuda.device_count() if recommended == "cuda" else 0):
        properties = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        torch.ones(1, device=f"cuda:{number}").add_(1).cpu()
        found["gpus"].append({"name": properties.name, "memory_bytes": total, "free_bytes": free})
    return found


def nccl(_: Question) -> Answer:
    """Whether a process group of NCCL works here, tried with one process on the first GPU."""
    import torch
    from torch import distributed

    with tempfile.TemporaryDirectory() as directory:
        torch.cuda.set_device(0)
        distributed.init_process_group("nccl", init_method=f"file://{directory}/store", rank=0, world_size=1)
        try:
            tensor = torch.ones(1, device="cuda:0")
            distributed.all_reduce(tensor)
            return {"works": tensor.item() == 1, "version": _nccl_version()}
        finally:
            distributed.destroy_process_group()


def sign_in(_: Question) -> Answer:
    """Whether a login for the tournament's server is stored here. Nothing of the login itself is told, nobody is asked
    whether it still holds, and nothing is written."""
    if not (Path.home() / ".metta").is_dir():  # CoGames would make it
        return {"signed_in": False}
    from cogames.auth import AuthConfigReaderWriter
    from cogames.cli.login import DEFAULT_COGAMES_SERVER

    reader = AuthConfigReaderWriter("cogames.yaml", "login_tokens")  # as `cogames auth login` writes it
    return {"signed_in": reader.has_saved_token(DEFAULT_COGAMES_SERVER), "server": DEFAULT_COGAMES_SERVER}


def missions(question: Question) -> Answer:
    """What the catalogue says against missions: their problems by name, an empty text for one without."""
    return {
        "problems": {
            name: "; ".join(problem.message for problem in check_mission(resolve_mission(name).name))
            for name in question["names"]
        }
    }


def own_mission(question: Question) -> Answer:
    """Builds a user's own mission, whose code is run. Question: `file`."""
    from daf_cogames.missions import build_mission

    return {"agents": build_mission(_mission({"name": "", **question})).game.num_agents}


def network(question: Question) -> Answer:
    """How large a policy's network is. The policy is built as training builds it, a user's own code is run.

    Question: `mission`, the fields of `Mission`; `class_path`; `arguments`; `largest`, values for those arguments of
    these names that the constructor has; `code`, a directory, or nothing.
    """
    from mettagrid.policy.policy_env_interface import PolicyEnvInterface

    from daf_cogames.missions import apply_mission
    from daf_cogames.policies import PolicySource, load_policy, load_policy_class, named_parameters

    environment = PolicyEnvInterface.from_mg_cfg(apply_mission(_mission(question["mission"])))
    code = Path(question["code"]) if question.get("code") else None
    if code is not None:
        sys.path.append(str(code))
    class_path = question["class_path"] if code is not None else resolve_policy(question["class_path"]).name
    arguments, largest = dict(question.get("arguments", {})), question.get("largest", {})
    constructor = named_parameters(load_policy_class(PolicySource(class_path, code=code)))
    arguments |= {parameter.name: largest[parameter.name] for parameter in constructor if parameter.name in largest}
    source = PolicySource(class_path, arguments, code=code)
    built = load_policy(source, environment).network()
    if built is None:
        return {"problem": f"{question['class_path']} has no network to train"}
    trained = [parameter for parameter in built.parameters() if parameter.requires_grad]
    return {
        "parameters": sum(parameter.numel() for parameter in trained),
        "weights_bytes": sum(tensor.numel() * tensor.element_size() for tensor in built.state_dict().values()),
        # Adam keeps two moments of every parameter.
        "optimizer_bytes": sum(2 * parameter.numel() * parameter.element_size() for parameter in trained),
    }


SUBJECTS: dict[str, Callable[[Question], Answer]] = {
    answer.__name__: answer for answer in (machine, device, nccl, sign_in, missions, own_mission, network)
}


def _mission(fields: Mapping[str, Any]) -> Mission:
    """A mission from its fields; with a `file` it is a user's own."""
    from daf_cogames.missions import Mission

    if fields.get("file"):
        file = Path(fields["file"])
        return Mission(**{**fields, "name": file.stem, "file": file})
    return Mission(**{**fields, "name": resolve_mission(fields["name"]).name})


def _answered(answer: Callable[[Question], Answer], question: Question) -> Answer:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return answer(question)
    except (Exception, SystemExit) as error:
        return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]}


def _nccl_version() -> str | None:
    import torch

    if torch.version.cuda is None or not torch.distributed.is_nccl_available():
        return None
    version: Callable[[], tuple[int, ...]] = torch.cuda.nccl.version
    return ".".join(map(str, version()))


if __name__ == "__main__":
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the order of nvidia-smi, so that numbers mean the same
    sys.exit(main())
