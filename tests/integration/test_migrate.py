"""`python -m daf_<service>.main migrate`, as the chart runs it before the new version serves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

SERVICES = ("scheduler", "training", "evaluation", "statistics", "deployment")


def migrate(service: str, home: Path, database_url: str, *verb: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DAF_HOME": str(home), "DAF_DATABASE_URL": database_url, "DAF_LOG_FORMAT": "text"}
    command = [sys.executable, "-m", f"daf_{service}.main", *(verb or ("migrate",))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_migrates_its_database_and_ends(service: str, tmp_path: Path, postgresql_database: str) -> None:
    first, second = (migrate(service, tmp_path, postgresql_database) for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert f"migrated the database of {service} from nothing to 0" in first.stdout + first.stderr
    assert "migrated" not in second.stdout + second.stderr
    engine = sa.create_engine(postgresql_database)
    with engine.connect() as connection:
        assert "leases" in sa.inspect(connection).get_table_names(schema=service)
    engine.dispose()


def test_a_verb_that_there_is_not_is_refused(tmp_path: Path) -> None:
    refused = migrate("scheduler", tmp_path, "", "upgrade")
    assert refused.returncode == 2
    assert "invalid choice: 'upgrade'" in refused.stderr
