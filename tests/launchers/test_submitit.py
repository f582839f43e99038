"""Jobs as hydra/launcher=slurm submits them, run by submitit's own executor of this machine: there is no Slurm here."""

import signal
import time

import psutil
import pytest

from tests.launchers.conftest import SHORT, latest, needs, start, trained

pytestmark = [needs("hydra_submitit_launcher"), pytest.mark.slow]
LOCAL = "hydra/launcher=submitit_local"


def logs(desk):
    """Return what the jobs wrote, by the number of their cell."""
    texts = [file.read_text() for file in desk.folder.glob("outputs/sweeps/*/*/.submitit/*/*_log.out")]
    return {number: text for text in texts for number in range(4) if f"\n[{number}] " in text}


def test_jobs_train_one_teacher_and_the_command_writes_the_table(desk):
    output = desk.runs("distill", "-m", LOCAL, "T=1,4", *SHORT, "teacher.recipe.epochs=60")
    jobs = "".join(logs(desk).values())
    assert jobs.count("teacher digits_teacher: training") == 1
    assert jobs.count("baseline digits_student seed 0: training") == 1
    assert ": waiting for process " in jobs
    assert [cell["status"] for cell in latest(desk)["cells"]] == ["done", "done"]
    assert "★" in output and len(trained(desk)) == 4


def test_a_job_that_runs_out_of_time_is_put_into_the_queue_again_and_resumes(desk):
    command = start(desk, "distill", "-m", LOCAL, "T=1", "recipe.epochs=60", *SHORT[1:])
    end = time.monotonic() + 120
    while "student digits_student seed 0, epoch 5/60" not in logs(desk).get(0, ""):
        assert command.poll() is None and time.monotonic() < end, (desk.folder / "said.txt").read_text()
        time.sleep(0.02)
    (job,) = (
        child
        for child in psutil.Process(command.pid).children(recursive=True)
        if "submitit.core._submit" in child.cmdline()
    )
    job.send_signal(signal.SIGUSR2)  # what Slurm sends before the time is up
    assert command.wait(timeout=120) == 0, (desk.folder / "said.txt").read_text()
    output = logs(desk)[0]
    assert "student digits_student seed 0: resuming after epoch" in output
    assert output.count("student digits_student seed 0, epoch 60/60") == 1
    (cell,) = latest(desk)["cells"]
    assert cell["status"] == "done"


def test_a_failed_job_is_a_row_of_the_table_and_not_the_end_of_the_sweep(desk):
    done = desk.type("distill", "-m", LOCAL, "recipe.lr=1e30,0.01", "recipe.epochs=2", *SHORT[1:])
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert [cell["status"] for cell in latest(desk)["cells"]] == ["failed", "done"]
