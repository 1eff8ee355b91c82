"""Imports of a user's code that find nothing are found before it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daf.client import Client
from daf.config import DAFEvaluationConfig, DAFTrainingConfig
from daf.convert import evaluation_spec, training_spec
from daf.imports import MissingModule, missing_modules
from daf.resources import Resources
from daf_common.archives import pack
from daf_common.errors import InvalidArgument

type MakeWheel = Callable[..., Path]

MISSION = "cogsguard_machina_1.miner_tutorial"


def archive_of(directory: Path, files: dict[str, str]) -> bytes:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return pack([directory])


def test_modules_that_nobody_has_are_found_where_they_are_imported_first(tmp_path: Path) -> None:
    archive = archive_of(
        tmp_path,
        {
            "mine.py": "import os, numpy.linalg\nfrom pkg import inner\nimport foo.bar\n",
            "pkg/__init__.py": "from . import inner\nimport foo\n",
            "pkg/inner.py": "import baz\nfrom .deeper import value\n",
            "pkg/deeper.py": "import qux\nvalue = 1\n",
            "unrelated.py": "import nowhere\n",
        },
    )

    assert missing_modules(archive, "mine.Policy", {"numpy"}) == [
        MissingModule("foo", "mine.py", 3),
        MissingModule("baz", "pkg/inner.py", 1),
        MissingModule("qux", "pkg/deeper.py", 1),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import fast\nexcept ImportError:\n    fast = None\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fast\n",
        "def late():\n    import fast\n",
        "from __future__ import annotations\n",
        "import mine2.inner\n",
    ],
)
def test_imports_that_need_not_run_do_not_count(tmp_path: Path, text: str) -> None:
    archive = archive_of(tmp_path, {"mine.py": text, "mine2/inner.py": ""})

    assert missing_modules(archive, "mine.Policy", set()) == []


def test_code_that_is_not_python_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, {"mine.py": "from helper_module import x\n", "helper_module.py": "def (\n"})

    with pytest.raises(InvalidArgument, match=r"code: helper_module\.py is not Python"):
        missing_modules(archive, "mine.Policy", set())


def document(directory: Path, **changes: Any) -> DAFTrainingConfig:
    (directory / "mine.py").write_text("import torch\nimport tiny\nclass Mine: ...\n")
    fields = {"missions": [MISSION], "policy": "mine.Mine", "code": [str(directory / "mine.py")], **changes}
    return DAFTrainingConfig.model_validate(fields)


def test_a_missing_package_stops_a_run_before_anything_is_stored(client: Client, services: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"code: mine\.py, line 2, imports tiny: .* under requirements"):
        training_spec(document(tmp_path), Resources(client))

    assert services.artifacts.uploads == 0


def test_code_travels_with_the_wheels_that_it_needs(
    client: Client, services: Any, home: Path, tmp_path: Path, make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(tmp_path / "index", "tiny", "1.0", {"tiny.py": ""})
    (tmp_path / "uv.toml").write_text("no-index = true\n")
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "index"))
    config = document(tmp_path, requirements=["tiny>=1", "numpy"])

    spec = training_spec(config, Resources(client))
    again = training_spec(config, Resources(client))
    own = {"policy": "mine.Mine", "code": config.code, "requirements": ["tiny>=1", "numpy"]}
    playing = DAFEvaluationConfig(
        policies=["mine.Mine", "random", own], code=config.code, requirements=["tiny>=1", "numpy"], missions=[MISSION]
    )
    evaluated = evaluation_spec(playing, Resources(client))

    wheels = spec.policy_class.requirements
    assert b"tiny-1.0-py3-none-any.whl" in services.artifacts.stored[wheels.sha256]
    assert again == spec
    assert services.artifacts.uploads == 2  # the code and the wheels, once
    assert [policy.policy_class.requirements for policy in evaluated.policies] == [wheels, type(wheels)(), wheels]
    assert evaluated.policies[0].policy_class.code == spec.policy_class.code


def test_requirements_without_code_are_refused(client: Client) -> None:
    config = DAFTrainingConfig(missions=[MISSION], policy="lstm", requirements=["tiny"])

    with pytest.raises(InvalidArgument, match="requirements: are those of code of your own"):
        training_spec(config, Resources(client))
