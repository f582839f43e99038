"""All of Hydra stands behind each verb: what it shows, what a user's own folders add, sweeps, plans, completion."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import SHORT

VERBS = [["distill"], ["train", "teacher"], ["train", "baseline"]]
OWN = {
    "model/mine.yaml": "# mine\nuse: mlp.Mlp\nhidden: [5]\ndropout: 0.0\nweights: null\n",
    "recipe/mine.yaml": "defaults: [/schema/recipe@_here_, _self_]\nepochs: 2\n",
    "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /student: mine\nT: 3.0\nseeds: 1\n",
}


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v[-1])
def test_cfg_shows_the_configuration_with_what_was_typed_and_makes_nothing(desk, verb):
    key = "teacher.recipe" if verb[-1] == "teacher" else "recipe"
    shown = desk.runs(*verb, "--cfg", "job", "--resolve", f"{key}.epochs=7", "dataset.val_fraction=0.2")
    cfg = yaml.safe_load(shown)
    node = cfg["teacher"]["recipe"] if verb[-1] == "teacher" else cfg["recipe"]
    assert node["epochs"] == 7 and cfg["dataset"]["val_fraction"] == 0.2 and cfg["loss"]["kd"]["T"] == 4.0
    assert desk.listing() == []


def test_info_explains_where_the_configuration_comes_from(desk):
    assert "digits_student" in desk.runs("distill", "--info", "defaults")
    assert "provider" in desk.runs("distill", "--info", "searchpath").lower()
    assert desk.listing() == []


@pytest.mark.parametrize("where", ["conf", pytest.param("elsewhere", marks=pytest.mark.slow)])
def test_a_users_own_folder_adds_a_model_a_recipe_and_an_experiment(desk, where):
    for name, text in OWN.items():
        desk.write(f"{where}/{name}", text)
    flags = [] if where == "conf" else ["--config-dir", where]
    shown = desk.runs("distill", "--cfg", "job", "--resolve", *flags, "experiment=mine", "recipe=mine")
    cfg = yaml.safe_load(shown)
    assert (cfg["T"], cfg["seeds"], cfg["recipe"]["epochs"], cfg["student"]["hidden"]) == (3.0, 1, 2, [5])
    output = desk.refuses("distill", *flags, "student=mien", "recipe=mime")
    assert "Did you mean mine?" in output
    planned = desk.runs("distill", *flags, "experiment=mine", "recipe=mine", "plan=true", "device=cpu")
    assert planned.count(" mine ") == 2


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v[-1])
def test_a_plan_says_what_would_be_trained_and_leaves_nothing(desk, verb):
    desk.write("notes.txt", "mine")
    before = desk.listing()
    own = {"distill": ["seeds=1", "alpha=0"], "baseline": ["seeds=1"]}.get(verb[-1], [])
    output = desk.runs(*verb, "plan=true", "device=auto", "device=cpu", *own, COLUMNS="160")
    assert "device=auto has no effect: device is typed again" in output
    rows = {"distill": 2}.get(verb[-1], 1)  # with alpha=0 the student is the baseline
    assert f"{rows} of {rows} to train" in output and re.search(r"\d [kM]B +to train", output)
    assert desk.listing() == before


def test_a_plan_of_a_sweep_leaves_nothing(desk):
    output = desk.runs("train", "baseline", "-m", "recipe.epochs=1,2", "plan=true", "seeds=1", "device=cpu")
    assert output.count("1 of 1 to train") == 2
    assert desk.listing() == []


def test_a_plan_in_a_folder_that_holds_other_files_leaves_them_alone(desk):
    desk.write("notes.txt", "mine")
    before = desk.listing()
    desk.runs("train", "baseline", "plan=true", "seeds=1", "device=cpu", "hydra.run.dir=.")
    assert desk.listing() == before


def test_a_plan_finds_what_was_trained_and_latest_is_what_it_was_when_typed(trained):
    before = trained.listing()
    output = trained.runs("distill", *(w for w in SHORT if "teacher" not in w), "plan=true", "teacher.from=latest")
    assert "0 of 2 to train" in output
    assert trained.listing() == before


def test_the_same_sweep_can_be_typed_in_every_way_that_hydra_reads(trained):
    output = trained.runs("distill", "-m", *SHORT, "T=choice(4,2)", "hydra/launcher=basic")
    folder = trained.folder / output.strip().splitlines()[-1].removeprefix("results: ")
    assert {p.name for p in folder.iterdir()} >= {"0", "1", "sweep.json"}


def completed(desk, line):
    done = desk.runs("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    return done.split()


def test_completion_knows_verbs_groups_keys_and_models(desk):
    assert {"distill", "train", "evaluate", "models"} <= set(completed(desk, "kdrun "))
    assert completed(desk, "kdrun train ") == ["baseline", "teacher"]
    assert "loss=mse_logits" in completed(desk, "kdrun distill loss=")
    assert completed(desk, "kdrun train teacher teacher=resnet3") == ["teacher=resnet32", "teacher=resnet32x4"]
    assert completed(desk, "kdrun  train  baseline seeds=1 recipe.ep") == ["recipe.epochs="]
    assert "resnet8x4" in completed(desk, "kdrun models ")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_function_that_bash_is_given_completes_in_a_real_bash(desk):
    command = Path(sys.executable).with_name("kdrun")
    if not command.exists():
        pytest.skip("the kdrun command is not installed beside this Python")
    script = f"""
        PATH={command.parent}:$PATH
        eval "$(kdrun -sc install=bash)"
        complete -p kdrun
        COMP_LINE="kdrun distill loss=mse_l" COMP_POINT=24 COMP_CWORD=2
        hydra_bash_completion
        echo "REPLY ${{COMPREPLY[*]}}"
    """
    done = subprocess.run(["bash", "--norc", "-c", script], cwd=desk.folder, capture_output=True, text=True, timeout=60)
    assert "-F hydra_bash_completion kdrun" in done.stdout, done.stderr
    assert "REPLY loss=mse_logits" in done.stdout, done.stdout + done.stderr
