"""A user goes on with the training job of a trial: the trial, which has ended, stays what it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from daf_common.channel import connect, raising, streaming
from daf_protos.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.scheduler.v1.sweep_pb2 import Trial
from daf_protos.training.v1 import training_service_pb2 as training_pb
from daf_protos.training.v1.training_job_pb2 import TrainingJob, TrainingJobState
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub
from daf_standalone.settings import Home
from tests.requests import all_trials, finished_sweep, result_digest, sweep_request
from tests.standin_stack import standin_host


async def test_a_trial_that_has_ended_stays_ended_when_its_job_goes_on(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    host = standin_host(home)
    await host.start()
    try:
        async with connect(f"unix:{home.socket()}") as channel, asyncio.timeout(150):
            scheduler, training = SchedulerServiceStub(channel), TrainingServiceStub(channel)
            request = sweep_request("s", 3, parallel=1)
            name = (await raising(scheduler.CreateSweep(request))).sweep.name
            first = await first_trial_with_an_end(scheduler, name)
            job = await trained_on(training, first.training_job, 2000)  # while the other trials are under way
            sweep = await finished_sweep(scheduler, name)
            before = result_digest(sweep, trials := await all_trials(scheduler, name))
            again = await trained_on(training, trials[1].training_job, 3000)  # and once the sweep has ended
            sweep = (await raising(scheduler.GetSweep(scheduler_pb.GetSweepRequest(name=name)))).sweep
            after = await all_trials(scheduler, name)
    finally:
        await host.stop()

    assert (job.checkpoint.agent_steps, again.checkpoint.agent_steps) == (2000, 3000)
    assert after == trials
    assert next(trial for trial in after if trial.name == first.name) == first
    assert result_digest(sweep, after) == before


async def first_trial_with_an_end(scheduler: SchedulerServiceStub, sweep: str) -> Trial:
    while True:
        for trial in await all_trials(scheduler, sweep):
            if trial.HasField("end_time"):
                return trial
        await asyncio.sleep(0.02)


async def trained_on(training: TrainingServiceStub, name: str, agent_steps: int) -> TrainingJob:
    """Resumes a job, and follows it by a watch to its second end."""
    request = training_pb.ResumeTrainingJobRequest(name=name, agent_steps=agent_steps)
    resumed = (await raising(training.ResumeTrainingJob(request))).training_job
    watch = training_pb.WatchTrainingJobsRequest(name=name)
    async for change in streaming(training.WatchTrainingJobs(watch)):
        for job in change.training_jobs:
            if job.revision > resumed.revision and job.state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED:
                return job
    raise AssertionError("the watch ended before the job")
