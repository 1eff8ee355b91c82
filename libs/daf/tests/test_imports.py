"""The client stays thin: what it imports is counted."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "sqlalchemy",
    "alembic",
    "obstore",
    "optuna",
    "cogames",
    "mettagrid",
}
SERVER_SIDE = {"daf_cogames", "daf_standalone", "daf_scheduler", "daf_training", "daf_evaluation", "daf_statistics"}
EVERYTHING = """
import importlib, pkgutil, sys
import daf
for module in pkgutil.walk_packages(daf.__path__, "daf."):
    if module.name not in {"daf.tracking.tensorboard", "daf.tracking.mlflow", "daf.tracking.wandb"}:  # extras
        importlib.import_module(module.name)
print(*sys.modules)
"""
HELP = """
import sys
sys.argv = ["daf", "--help"]
from daf.cli.main import main
try:
    main()
except SystemExit:
    print(*sys.modules)
"""


def modules(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_nothing_of_the_client_imports_what_services_and_runners_need() -> None:
    imported = modules(EVERYTHING)

    assert "daf.cli.sweep" in imported
    assert not imported & (HEAVY | SERVER_SIDE)
    assert len(imported) < 800


def test_the_help_imports_next_to_nothing() -> None:
    imported = modules(HELP)

    assert not imported & {"grpc", "pydantic", "rich", "ruamel.yaml", "google.protobuf"}
    assert len(imported) < 250
