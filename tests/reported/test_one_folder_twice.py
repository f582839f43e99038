"""A folder that was typed twice (hydra.run.dir, hydra.sweep.dir) keeps what it held; the same command goes on."""

import pytest

BASELINE = ["train", "baseline", "recipe.epochs=1", "seeds=1", "device=cpu", "hydra.run.dir=here"]
SWEEP = ["train", "baseline", "-m", "recipe.epochs=1", "seeds=1", "device=cpu", "hydra.sweep.dir=swept"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder with a run and a sweep, each in a place that was typed."""
    from tests.cli.conftest import Desk

    desk = Desk(tmp_path_factory.mktemp("done"))
    desk.runs(*BASELINE)
    desk.runs(*SWEEP, "seed=0,1")
    return desk


def contents(desk, folder):
    return {path: path.read_bytes() for path in (desk.folder / folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*BASELINE, "recipe.lr=0.02"], "other trainings, from kdrun train baseline recipe.epochs=1"),
        ([*BASELINE, "plan=true"], "leave hydra.run.dir out"),
        (["evaluate", "here", "hydra.run.dir=here"], "type another hydra.run.dir"),
        (["distill", "hydra.run.dir=swept"], "already contains a sweep"),
        pytest.param([*SWEEP, "seed=1,0"], "type another hydra.sweep.dir", marks=pytest.mark.slow),
        ([*SWEEP, "seed=0"], "from kdrun train baseline -m recipe.epochs=1"),
        pytest.param([*BASELINE, "hydra.sweep.subdir=x"], "in numbered folders", marks=pytest.mark.slow),
    ],
)
def test_another_comparison_in_the_same_folder_is_refused_and_the_first_one_stays(done, words, message):
    before = contents(done, "here"), contents(done, "swept")
    assert message in done.refuses(*words)
    assert (contents(done, "here"), contents(done, "swept")) == before


def test_the_same_command_in_the_same_folder_finds_what_it_made(done):
    before = (done.folder / "swept/0/comparison.md").read_bytes()
    assert "found" in done.runs(*SWEEP, "seed=0,1")
    assert (done.folder / "swept/0/comparison.md").read_bytes() == before


@pytest.mark.slow
def test_a_command_that_is_refused_once_it_runs_leaves_the_record_of_the_first_one(done):
    evaluate = ["evaluate", "here", "device=cpu", "hydra.run.dir=measured"]
    done.runs(*evaluate)
    before = (done.folder / "measured/run.json").read_bytes()
    assert done.type(*evaluate, "dataset.root=x").returncode == 2
    assert (done.folder / "measured/run.json").read_bytes() == before
