"""The presets compose with the plugins' own keys, and what could not work is refused with what to type."""

import tomllib
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from kdrun import checks, config
from kdrun.command import groups, plugins, preflight
from kdrun.plan import dry_run
from kdrun.sweeps import launcher
from tests.launchers.conftest import needs

JOBLIB, SUBMITIT, OPTUNA = "hydra_joblib_launcher", "hydra_submitit_launcher", "hydra_optuna_sweeper"
SEARCH = "hydra/sweeper=optuna"


@pytest.fixture(scope="module", autouse=True)
def dirs():
    groups.register(groups.user_dirs())
    launcher.register()


def check(*words, verb="distill", sweep=True):
    return preflight.check(verb, words, sweep=sweep, dirs=[config.CONF])


def composed(*words, verb="distill"):
    checked = check(*words, verb=verb)
    assert checked.problems == []
    cfg = checked.cells[0].cfg
    HydraConfig.instance().set_config(cfg)
    return cfg.hydra


@needs(SUBMITIT)
def test_slurm_asks_for_one_gpu_and_puts_a_job_that_runs_out_of_time_into_the_queue_again():
    slurm = composed("hydra/launcher=slurm", "hydra.launcher.partition=gpu", "T=1,2").launcher
    assert slurm._target_.endswith(".SlurmLauncher")
    assert (slurm.gpus_per_node, slurm.nodes, slurm.tasks_per_node) == (1, 1, 1)
    assert slurm.max_num_timeout > 0 and slurm.signal_delay_s > 0
    assert (slurm.name, slurm.partition) == ("kdrun-distill", "gpu")


@needs(SUBMITIT)
def test_the_machine_that_submits_need_not_have_the_device_that_the_jobs_will_have():
    cells = check("hydra/launcher=slurm", "device=cuda:7", "precision=tf32", "T=1").cells
    assert dry_run.problems("distill", cells, losses=True, networks=True) == []
    here = check("device=cuda:7", "T=1").cells
    assert "device=cuda:7" in dry_run.problems("distill", here, losses=True, networks=True)[0]


@needs(JOBLIB)
def test_gpus_runs_as_many_cells_at_once_as_there_are_gpus_and_at_least_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert composed("hydra/launcher=gpus", "T=1,2").launcher.n_jobs == 4
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert composed("hydra/launcher=gpus", "T=1,2").launcher.n_jobs == 1


@needs(OPTUNA)
def test_a_search_maximises_over_what_the_loss_and_the_verb_read():
    search = composed(SEARCH).sweeper
    assert (search.direction, search.sampler.seed, search.n_jobs) == ("maximize", 0, 1)
    assert set(search.params) == {"T", "alpha"}
    assert set(composed(SEARCH, "loss=ls").sweeper.params or {}) <= {"alpha"}
    assert not composed(SEARCH, "recipe.lr=interval(0.01,0.1)", verb="train_baseline").sweeper.params


@needs(OPTUNA)
@needs(JOBLIB)
def test_a_search_proposes_as_many_cells_as_run_at_once():
    assert composed(SEARCH, "hydra/launcher=gpus", "hydra.launcher.n_jobs=3").sweeper.n_jobs == 3
    assert composed(SEARCH, "hydra/launcher=joblib").sweeper.n_jobs == 1  # -1 there: all cores


@needs(OPTUNA)
def test_of_a_searchs_space_the_ends_are_checked():
    checked = check("T=interval(1,20)", "alpha=interval(0.1,1)", "student=resnet8,resnet20", "seeds=1", SEARCH)
    assert checked.problems == [] and checked.searched
    assert [cell.typed[:3] for cell in checked.cells] == [
        ["T=1.0", "alpha=0.1", "student=resnet8"],
        ["T=20.0", "alpha=0.1", "student=resnet8"],
        ["T=1.0", "alpha=1.0", "student=resnet8"],
        ["T=1.0", "alpha=0.1", "student=resnet20"],
    ]
    assert not check("T=1,2").searched


REFUSED = [
    (["alpha=interval(0,1.5)"], "alpha=1.5: must lie in [0, 1] (in the cell T=1.0 alpha=1.5)"),
    (["alpha=interval(0.5,0.5)"], "an interval needs two increasing numbers"),
    (["T=tag(log,interval(0,9))"], "on a logarithmic scale both ends must be above 0"),
    (["student=glob(resnet*)"], "a search does not take globs"),
    (["recipe.protocol=paper"], "recipe.protocol=paper has no validation"),
    (["dataset.val_fraction=0"], "dataset.val_fraction=0 has no validation"),
    (["plan=true"], "chooses each cell from earlier results"),
    (["alhpa=interval(0,1)"], "Did you mean alpha?"),
]


@needs(OPTUNA)
@pytest.mark.parametrize(("words", "why"), REFUSED, ids=lambda v: v[0][:20] if isinstance(v, list) else "")
def test_a_search_that_could_not_work_is_refused(words, why):
    problems = check(SEARCH, *words).problems
    assert problems and all(why in problem for problem in problems), problems


@needs(OPTUNA)
def test_an_evaluation_cannot_be_searched():
    assert "evaluate trains nothing" in check(SEARCH, "run=latest", verb="evaluate").problems[0]


@needs(JOBLIB)
def test_a_plan_is_shown_here_and_not_where_the_cells_would_run():
    assert "leave hydra/launcher=gpus out" in check("hydra/launcher=gpus", "plan=true", "T=1,2").problems[0]


def test_an_interval_without_a_search_says_what_would_search_it():
    (problems,) = check("T=interval(1,3)").problems
    assert "range(start,stop,step)" in problems and SEARCH in problems


@pytest.mark.parametrize(
    ("choice", "package", "extra"),
    [
        ("hydra/launcher=slurm", "hydra-submitit-launcher", "slurm"),
        ("hydra/launcher=gpus", "hydra-joblib-launcher", "gpus"),
        ("hydra/sweeper=optuna", "hydra-optuna-sweeper", "optuna"),
    ],
)
def test_a_preset_without_its_plugin_is_refused_with_what_to_install(monkeypatch, choice, package, extra):
    monkeypatch.setattr(checks, "installed", lambda package: False)
    space = ["T=interval(1,3)"] if "sweeper" in choice else ["T=1,2"]
    (problems,) = check(choice, *space).problems
    assert f"needs {package}, which is not installed; type pip install 'kdrun[{extra}]'" in problems


def test_every_extra_that_is_named_exists():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for plugin, extra in plugins.PLUGINS.values():
        assert any(wanted.startswith(plugin.replace("_", "-")) for wanted in extras[extra])


def test_a_launcher_typed_for_a_single_run_is_refused(desk):
    problems = desk.problems("distill", "hydra/launcher=basic", "hydra/sweeper=basic")
    assert all("it is only for sweeps; type kdrun distill -m" in problem for problem in problems)
    assert "launcher" in desk.runs("distill", "--cfg", "hydra", "hydra/launcher=basic")
    assert "leave -m out" in desk.refuses("distill", "--cfg", "hydra", "-m")
