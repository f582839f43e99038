"""hydra/sweeper=optuna: cells chosen by the validation accuracy of those before them."""

import pytest
import yaml

from tests.cli.conftest import Desk
from tests.launchers.conftest import SHORT, latest, needs, trained

pytestmark = [needs("hydra_optuna_sweeper"), pytest.mark.slow]
SEARCH = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Three trials on digits, and what was said."""
    desk = Desk(tmp_path_factory.mktemp("optuna"))
    return desk, desk.runs("distill", "-m", *SEARCH, "T=interval(1.0,8.0)", *SHORT, "seeds=2")


def accuracy(cell):
    (student,) = [row for row in cell["rows"] if row["role"] == "student"]
    return student["val_accuracy"]["mean"]


def test_what_is_maximised_is_the_students_mean_validation_accuracy(searched):
    desk, _ = searched
    sweep = latest(desk)
    record = yaml.safe_load((desk.folder / "outputs" / "latest" / "optimization_results.yaml").read_text())
    assert record["best_value"] == pytest.approx(max(accuracy(cell) for cell in sweep["cells"]), abs=1e-12)
    best = next(cell for cell in sweep["cells"] if cell["number"] == sweep["best"]["number"])
    assert accuracy(best) == pytest.approx(record["best_value"], abs=1e-12)


def test_every_trial_is_a_cell_of_the_table_with_what_it_drew(searched):
    desk, output = searched
    sweep = latest(desk)
    assert [cell["number"] for cell in sweep["cells"]] == [0, 1, 2]
    for cell in sweep["cells"]:
        drawn = {key: float(value) for key, value in cell["swept"].items()}
        assert set(drawn) == {"T", "alpha"} and 1 <= drawn["T"] <= 8 and 0 <= drawn["alpha"] <= 1
    assert "trial 1 of 3: T=" in output and "value tried" not in output
    assert {"sweep.svg", "sweep.csv"} <= {p.name for p in (desk.folder / "outputs" / "latest").iterdir()}


def test_the_teacher_and_the_baselines_are_trained_once(searched):
    desk, output = searched
    assert output.count("teacher digits_teacher: training") == 1
    assert len(trained(desk)) == 1 + 2 + 3 * 2


def test_the_same_search_proposes_the_same_cells_and_finds_them(searched):
    desk, _ = searched
    before = [cell["overrides"] for cell in latest(desk)["cells"]]
    output = desk.runs("distill", "-m", *SEARCH, "T=interval(1.0,8.0)", *SHORT, "seeds=2")
    assert [cell["overrides"] for cell in latest(desk)["cells"]] == before
    assert ": training" not in output


def test_a_trial_that_fails_is_told_and_the_search_goes_on(desk):
    words = ["recipe.lr=1e30,0.01", "T=4", "alpha=0.9", *SHORT]
    done = desk.type("distill", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", *words)
    sweep = latest(desk)
    states = {cell["swept"]["recipe.lr"]: cell["status"] for cell in sweep["cells"]}
    assert states == {"1e+30": "failed", "0.01": "done"} and done.returncode == 3, done.stdout + done.stderr
    assert sweep["best"]["swept"] == {"recipe.lr": "0.01"}


def test_a_search_of_which_nothing_can_be_measured_ends_with_its_table(desk):
    words = ["recipe.lr=1e30,2e30", "T=4", "alpha=0.9", *SHORT]
    done = desk.type("distill", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", *words)
    assert done.returncode == 3 and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert "no trial of this search could be measured" in done.stdout + done.stderr
    assert "2 of 2 cells failed" in done.stdout


@needs("hydra_joblib_launcher")
def test_a_search_side_by_side_proposes_batches(desk):
    beside = ["hydra/launcher=gpus", "hydra.launcher.n_jobs=2"]
    desk.runs("train", "baseline", "-m", *beside, *SEARCH, "recipe.lr=tag(log,interval(0.001,0.1))",
              "recipe.epochs=1", "seeds=1", "device=cpu")  # fmt: skip
    sweep = latest(desk)
    assert [cell["status"] for cell in sweep["cells"]] == ["done"] * 3
    assert all(set(cell["swept"]) == {"recipe.lr"} for cell in sweep["cells"])
