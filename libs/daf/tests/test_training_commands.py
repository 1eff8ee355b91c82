"""`daf train` and `daf job`, as far as the client decides what they do."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daf_protos.training.v1 import training_job_pb2

type Daf = Callable[..., Any]

MISSION = "cogsguard_machina_1.miner_tutorial"
COMMAND = [sys.executable, "-c", "from daf.cli.main import main; main()"]


def spec_of(services: Any) -> Any:
    return services.training.requests[-1].spec


def test_every_option_of_a_run_reaches_the_service(daf: Daf, with_services: Any, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"my weights")

    daf("train", "-m", MISSION, "-p", "lstm", "--steps", "5000", "--workers", "2", "--num-envs", "8",
        "--min-workers", "1", "--profile", "gpu-1", "--variant", "dark", "--difficulty", "hard", "--map-seed", "0",
        "--from", str(tmp_path / "w.pt"), "--checkpoint-steps", "1000", "--keep", "3", "--max-restarts", "0",
        "--best-metric", "losses/entropy", "--minimize", "--detach")  # fmt: skip

    spec = spec_of(with_services)
    mission = spec.missions[0]
    assert (list(mission.variants), mission.difficulty) == (["dark"], "hard")
    assert mission.HasField("map_seed")
    assert (spec.agent_steps, spec.workers, spec.environments, spec.profile) == (5000, 2, 8, "gpu-1")
    assert (spec.checkpoint_agent_steps, spec.max_checkpoints) == (1000, 3)
    assert spec.min_workers == 1
    assert spec.HasField("max_restarts")
    assert spec.max_restarts == 0
    assert (spec.best_metric, spec.minimize_best_metric) == ("losses/entropy", True)
    assert with_services.artifacts.stored[spec.start.weights.sha256] == b"my weights"
    assert spec.start.policy_class == spec.policy_class


def test_a_job_says_with_how_few_workers_it_makes_do(daf: Daf, with_services: Any) -> None:
    daf("train", "-m", MISSION, "-p", "lstm", "--workers", "3", "--min-workers", "2", "--name", "one", "--detach")
    assert "makes do with 2 workers where it cannot have all\n" in daf("job", "get", "one").out


def test_a_document_says_the_same_as_the_options(daf: Daf, with_services: Any, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"""
missions: [{{mission: {MISSION}, difficulty: hard}}]
policy: lstm
training: {{agent_steps: 5e3, workers: 2, min_workers: 1, checkpoint_agent_steps: 1e3, max_checkpoints_to_keep: 3,
           max_restarts: 1, best_metric: losses/entropy, best_direction: minimize}}
""")

    daf("train", str(tmp_path / "run.yaml"), "--detach")
    daf("train", "-m", MISSION, "--difficulty", "hard", "-p", "lstm", "--steps", "5000", "--workers", "2",
        "--min-workers", "1", "--checkpoint-steps", "1000", "--keep", "3", "--max-restarts", "1",
        "--best-metric", "losses/entropy", "--minimize", "--detach")  # fmt: skip

    first, second = with_services.training.requests
    assert first.spec == second.spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "'--workers'"),
        (["--workers", "two"], "'--workers'"),
        (["--min-workers", "0"], "'--min-workers'"),
        (["--checkpoint-steps", "0"], "'--checkpoint-steps'"),
        (["--keep", "-1"], "'--keep'"),
        (["--max-restarts", "-1"], "'--max-restarts'"),
        (["--map-seed", "-1"], "'--map-seed'"),
        (["--steps", "1.5"], "'--steps'"),
        (["--from", "none.pt"], "none.pt: No such file"),
        (["--from", "job/one"], "'job/one' is no checkpoint: write job/NAME/checkpoints/best"),
        (["--from", "job/one/checkpoints/newest"], "trainingJobs/one does not exist"),
        (["--from", "class=lstm"], "no weights to start from"),
    ],
)
def test_a_wrong_option_is_named_and_starts_nothing(
    daf: Daf, with_services: Any, options: list[str], message: str
) -> None:
    outcome = daf("train", "-m", MISSION, "-p", "lstm", *options)

    assert outcome.code in (2, 4)
    assert message in outcome.err
    assert not with_services.training.requests


def test_a_run_that_is_refused_says_why(daf: Daf, with_services: Any) -> None:
    outcome = daf("train", "-m", MISSION, "-p", "lstm", "--workers", "65")

    assert (outcome.code, outcome.err) == (6, "daf: spec.workers: 65 workers need 65 CPUs: there are 64\n")


def test_the_end_of_a_run_says_what_to_do_with_it(daf: Daf, with_services: Any) -> None:
    options = ["--cogs", "4", "--name", "one", "--steps", "990", "--set", "lr=0.1", "--set", "policy.hidden_size=8"]

    outcome = daf("train", "-m", MISSION, "-p", "lstm", "--checkpoint-steps", "90", *options)

    assert outcome.code == 0
    assert "every 90 steps: they were saved every 100" in outcome.out
    assert "trainingJobs/one succeeded: 1,000 agent steps" in outcome.out
    assert "(990 steps were asked for" in outcome.out
    assert "trained with:    learning_rate 0.0005 (`daf job get one` shows all)" in outcome.out
    assert f"daf evaluate -p job/one/checkpoints/best -m {MISSION} --cogs 4" in outcome.out
    assert "daf job checkpoints get one best --output one" in outcome.out


def test_a_pipe_gets_a_line_for_each_event(daf: Daf, with_services: Any) -> None:
    with_services.training.loses_a_worker = True
    with_services.training.waits_for = "2 CPUs: 1 of 2 is free"

    lines = daf("train", "-m", MISSION, "-p", "lstm", "--name", "one").out.splitlines()

    assert "trainingJobs/one pending, waits for 2 CPUs: 1 of 2 is free" in lines
    lost = "attempt 1 ended at 500 steps (WORKER_LOST): worker 1 was killed; attempt 2 goes on from update 5"
    assert lost in lines
    assert "trainingJobs/one starting, attempt 2, its workers start" in lines
    assert any(line.startswith("trainingJobs/one running, attempt 2, 50% of 1,000 steps") for line in lines)


def test_a_terminal_shows_what_the_workers_do(with_services: Any) -> None:
    with_services.training.stays = training_job_pb2.TRAINING_JOB_STATE_RUNNING

    def go_on(shown: bytes) -> None:
        if b"1.2 GB" in shown:  # the last of what is looked for
            with_services.training.stays = None

    command = ["train", "-m", MISSION, "-p", "lstm", "--name", "one", "--workers", "2"]
    screen = on_a_terminal(*command, on_part=go_on)

    assert "500 of 1,000 agent steps" in screen
    assert "reward per agent 1.5" in screen
    assert "losses: entropy 1.5, policy 0.25, clipfrac 0.1" in screen
    assert "CPU cores" in screen
    assert "600 MB" in screen
    assert "1.2 GB" in screen


def test_a_terminal_says_what_a_job_waits_for_and_that_it_was_restarted(with_services: Any) -> None:
    with_services.training.loses_a_worker = True
    with_services.training.waits_for = "2 CPUs: 1 of 2 is free"

    screen = on_a_terminal("train", "-m", MISSION, "-p", "lstm", "--name", "one")

    assert "waits for 2 CPUs: 1 of 2 is free" in screen
    assert "attempt 1 ended at 500 steps (WORKER_LOST)" in screen


def test_services_that_are_away_for_a_moment_end_nothing(daf: Daf, with_services: Any) -> None:
    with_services.training.unavailable = 3

    assert daf("train", "-m", MISSION, "-p", "lstm").code == 0


def test_a_failed_run_says_why_and_how_to_go_on(daf: Daf, with_services: Any) -> None:
    with_services.training.fails = True

    outcome = daf("train", "-m", MISSION, "-p", "lstm", "--name", "one")

    assert outcome.code == 1
    assert "daf: trainingJobs/one failed: DIVERGED: the weights became NaN\n" in outcome.err
    assert "`daf job resume one` goes on from update 10" in outcome.err


def test_ctrl_c_leaves_a_run_going_and_says_how_to_go_on(with_services: Any, home: Path) -> None:
    with_services.training.stays = training_job_pb2.TRAINING_JOB_STATE_PENDING
    process = subprocess.Popen(
        [*COMMAND, "train", "-m", MISSION, "-p", "lstm", "--name", "one"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "pending" in process.stdout.readline()

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "`daf job watch one` follows it, `daf job cancel one` stops it" in err
    assert "Traceback" not in err
    assert not with_services.training.jobs["trainingJobs/one"].cancel_requested


@pytest.fixture
def trained(daf: Daf, with_services: Any) -> Any:
    """The services with a job `one` that has run."""
    daf("train", "-m", MISSION, "-p", "lstm", "--name", "one")
    return with_services


def test_a_job_is_watched_as_json_lines(daf: Daf, with_services: Any) -> None:
    daf("train", "-m", MISSION, "-p", "lstm", "--name", "one", "--detach")

    lines = [json.loads(line)["training_job"] for line in daf("job", "watch", "one", "--json").out.splitlines()]

    assert [line["state"].removeprefix("TRAINING_JOB_STATE_") for line in lines] == [
        "PENDING",
        "STARTING",
        "RUNNING",
        "SUCCEEDED",
    ]


def test_a_job_goes_on_with_other_workers(daf: Daf, trained: Any) -> None:
    refused = daf("job", "resume", "one")
    outcome = daf("job", "resume", "job/one", "--workers", "2", "--steps", "2000")

    assert (refused.code, "give more agent_steps" in refused.err) == (6, True)
    assert outcome.code == 0
    assert "trainingJobs/one running, attempt 2" in outcome.out
    request = trained.training.resumed[0]
    assert (request.workers, request.agent_steps, request.request_id != "") == (2, 2000, True)


def test_a_job_goes_on_without_being_followed(daf: Daf, trained: Any) -> None:
    outcome = daf("job", "resume", "one", "--steps", "2000", "--detach")

    assert outcome.out == "trainingJobs/one goes on from update 10: `daf job watch one` follows it.\n"
    assert not trained.training.resumed[0].HasField("workers")


def test_attempts_are_listed_with_why_they_ended(daf: Daf, with_services: Any) -> None:
    with_services.training.loses_a_worker = True
    daf("train", "-m", MISSION, "-p", "lstm", "--name", "one")

    rows = [" ".join(line.split()) for line in daf("job", "attempts", "one").out.splitlines()]

    assert rows[1] == "2 1 5 1,000 1970-01-01 00:16:40 4 s well"
    assert rows[2] == "1 1 - 500 1970-01-01 00:16:40 4 s WORKER_LOST: worker 1 was killed"
    assert daf("job", "attempts", "one", "--json").json()["attempts"][0]["number"] == 2


def test_checkpoints_are_listed_with_their_marks(daf: Daf, trained: Any) -> None:
    rows = [" ".join(line.split()) for line in daf("job", "checkpoints", "one").out.splitlines()]

    digest = trained.training.jobs["trainingJobs/one"].checkpoint.weights.sha256
    assert rows == [
        "update agent steps reward attempt size sha256",
        f"10 1,000 1.5 1 7 B {digest[:12]} latest",
        f"4 400 2.5 1 7 B {digest[:12]} best",
    ]
    assert daf("job", "checkpoints", "one", "--json").json()["checkpoints"][1]["update"] == "4"
    assert daf("job", "checkpoints", "none").code == 4


def test_checkpoints_show_the_metric_that_makes_one_the_best(daf: Daf, with_services: Any) -> None:
    daf("train", "-m", MISSION, "-p", "lstm", "--name", "one", "--best-metric", "losses/entropy")

    assert "losses/entropy" in daf("job", "checkpoints", "one").out


def test_a_checkpoint_is_brought_here(daf: Daf, trained: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)

    best = daf("job", "checkpoints", "get", "one", "best", "--output", "here")
    named = daf("job", "checkpoints", "get", "one", "--json").json()
    again = daf("job", "checkpoints", "get", "one", "best", "--output", "here")

    assert f"cogames run -m {MISSION} -p ./here" in best.out
    assert json.loads((tmp_path / "here/policy_spec.json").read_text())["data_path"] == "weights.pt"
    assert named["directory"] == str(tmp_path / "one:v10")
    assert (again.code, "is there already" in again.err) == (6, True)
    assert daf("job", "checkpoints", "get", "one", "newest").code == 2
    assert daf("job", "checkpoints", "get", "one", "7").code == 4


def test_metrics_are_summarized_and_printed(daf: Daf, trained: Any) -> None:
    summary = [" ".join(line.split()) for line in daf("job", "metrics", "one").out.splitlines()]
    values = [
        " ".join(line.split()) for line in daf("job", "metrics", "one", "--metric", "losses/entropy").out.splitlines()
    ]
    rows = list(csv.reader(io.StringIO(daf("job", "metrics", "one", "--csv").out)))
    series = daf("job", "metrics", "one", "--metric", "losses/entropy", "--json").json()["series"]

    assert summary[1:3] == ["env/reward_per_agent 1 1.5 1.5 1.5 1.5", "losses/entropy 2 1.25 nan 1.25 1.25"]
    assert values[1:] == ["1 100 1.25", "2 200 nan"]
    assert rows == [
        ["update", "agent_steps", "env/reward_per_agent", "losses/entropy", "env/agent/death"],
        ["1", "100", "", "1.25", ""],
        ["2", "200", "1.5", "nan", "0.5"],
    ]
    assert [one["metric"] for one in series] == ["losses/entropy"]
    assert daf("job", "metrics", "one").out.endswith("1 more are statistics of the environment: --all lists them.\n")
    assert "env/agent/death" in daf("job", "metrics", "one", "--all").out


def test_an_unknown_metric_is_refused_with_the_nearest(daf: Daf, trained: Any) -> None:
    outcome = daf("job", "metrics", "one", "--metric", "losses/entropie")

    assert outcome.code == 2
    assert "--metric: there is no 'losses/entropie'; did you mean 'losses/entropy'?" in outcome.err


def test_logs_bear_the_number_of_the_worker_and_the_attempt(daf: Daf, trained: Any) -> None:
    outcome = daf("job", "logs", "one")

    assert outcome.out == "trainingJobs/one first\n[worker 1] trainingJobs/one second\n"
    assert outcome.err == "daf: attempt 2\n"
    assert daf("job", "logs", "one", "--attempt", "2", "--json").out.count('"attempt": 2') == 2


def test_a_job_is_deleted(daf: Daf, trained: Any) -> None:
    assert daf("job", "delete", "one", "--yes").out == "trainingJobs/one is deleted\n"
    assert daf("job", "get", "one").code == 4
    assert daf("job", "delete", "one", "--yes").code == 4


def test_nothing_is_deleted_without_a_yes_on_a_terminal(trained: Any) -> None:
    screen = on_a_terminal("job", "delete", "one", answer=b"n\n")

    assert "Delete trainingJobs/one with its checkpoints, numbers and logs?" in screen
    assert "nothing was deleted" in screen
    assert "trainingJobs/one" in trained.training.jobs


def test_the_parameters_of_a_policy_are_listed(daf: Daf, with_services: Any) -> None:
    assert "policy.hidden_size" in daf("job", "params", "lstm").out
    assert daf("job", "params", "nothing").code == 4


def test_the_parameters_of_a_policy_of_ones_own_are_those_of_its_constructor(
    daf: Daf, with_services: Any, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("""
class Policy:
    def __init__(self, policy_env_info, size=8, *, name="x", depth: int, device="cpu"): ...

class Inherits(Policy): ...
""")
    code = ["--code", str(tmp_path / "mine.py")]

    listed = daf("job", "params", "mine.Policy", *code, "--json").json()["hyperparameters"]
    inherited = daf("job", "params", "mine.Inherits", *code)

    own = {one["name"]: one.get("default_value") for one in listed if one["name"].startswith("policy.")}
    assert own == {"policy.size": {"integer": "8"}, "policy.name": {"text": "x"}, "policy.depth": None}
    assert any(one["name"] == "trainer.learning_rate" for one in listed)
    assert "any policy.NAME is passed on" in inherited.err
    assert daf("job", "params", "other.Policy", *code).code == 2


def on_a_terminal(*arguments: str, answer: bytes = b"", on_part: Callable[[bytes], None] = lambda shown: None) -> str:
    """What a command writes to a terminal of 120 columns, without styles. `on_part` is told what it has written."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40", "NO_COLOR": "1"}
    process = subprocess.Popen([*COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    if answer:
        os.write(master, answer)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
            on_part(shown)
    except OSError:  # the other end is closed
        pass
    process.wait(timeout=30)
    os.close(master)
    return shown.decode()
