"""Every file under conf/ composes, and what it chooses is what it says."""

from dataclasses import fields
from pathlib import Path

import pytest

from kdrun import config, groups, preflight


@pytest.fixture(scope="module", autouse=True)
def dirs():
    found = groups.user_dirs()
    groups.register(found)
    return found


def composed(*words, verb="distill"):
    checked = preflight.check(verb, words, sweep=False, dirs=[config.CONF])
    assert checked.problems == []
    return checked.cells[0].cfg


def names(group):
    return groups.options(group, [config.CONF])


@pytest.mark.parametrize("verb", ["distill", "train_teacher", "train_baseline"])
@pytest.mark.parametrize("dataset", names("dataset"))
def test_every_data_set_composes_with_the_networks_and_recipes_it_names(verb, dataset):
    cfg = composed(f"dataset={dataset}", verb=verb)
    assert cfg.student.use and cfg.teacher.use and cfg.dataset.use


@pytest.mark.parametrize("recipe", names("recipe"))
def test_every_recipe_serves_students_and_teachers(recipe):
    cfg = composed(f"recipe={recipe}", f"recipe@teacher.recipe={recipe}", "teacher.recipe.epochs=77")
    assert cfg.teacher.recipe.epochs == 77
    assert cfg.recipe.epochs != 77
    assert cfg.recipe.optimizer == cfg.teacher.recipe.optimizer


@pytest.mark.parametrize("experiment", names("experiment"))
@pytest.mark.parametrize("budget", names("budget"))
def test_every_experiment_composes_with_every_budget(experiment, budget):
    cfg = composed(f"experiment={experiment}", f"budget={budget}")
    if budget == "quick":
        assert cfg.recipe.epochs <= 3 and cfg.teacher.recipe.epochs <= 3 and cfg.seeds == 1


def test_what_is_typed_wins_over_what_the_data_set_names():
    cfg = composed("dataset=cifar100", "student=vgg8", "recipe=cosine", "recipe.lr=0.5")
    assert cfg.student.use == "vgg.Vgg"
    assert (cfg.recipe.schedule, cfg.recipe.lr) == ("cosine", 0.5)
    assert cfg.teacher.recipe.schedule == "multistep"


@pytest.mark.parametrize(("student", "lr"), [("resnet8x4", 0.05), ("mobilenetv2", 0.01), ("shufflenetv1", 0.01)])
def test_the_published_recipe_knows_the_learning_rate_of_each_network(student, lr):
    cfg = composed("dataset=cifar100", f"student={student}")
    assert (cfg.recipe.lr, cfg.teacher.recipe.lr) == (lr, 0.05)


def test_the_published_recipe_is_the_published_one():
    recipe = composed("dataset=cifar100").recipe
    assert (recipe.epochs, recipe.batch_size, recipe.momentum, recipe.weight_decay) == (240, 64, 0.9, 5e-4)
    assert (list(recipe.milestones), recipe.gamma, recipe.schedule) == ([150, 180, 210], 0.1, "multistep")


@pytest.mark.parametrize(
    ("recipe", "epochs", "warmup", "milestones"),
    [
        ("cosine", 60, 3, []),
        ("cosine", 500, 3, []),
        ("cosine", 20, 1, []),
        ("cosine", 1, 0.05, []),
        ("finetune", 1, 0.1, []),
        ("cifar_240", 480, 0, [300, 360, 420]),
        ("cifar_240", 24, 0, [15, 18, 21]),
        ("cifar_240", 2, 0, [1, 2]),
        ("cifar_240", 1, 0, [1]),
    ],
)
def test_warm_up_and_milestones_that_nobody_typed_follow_the_epochs(recipe, epochs, warmup, milestones):
    words = [f"recipe={recipe}", f"recipe.epochs={epochs}"]
    cfg = composed("dataset=synthetic", *words)
    assert cfg.recipe.warmup_epochs == pytest.approx(warmup)
    assert list(cfg.recipe.milestones) == milestones
    checked = preflight.check("distill", words, sweep=False, dirs=[config.CONF])
    assert len(preflight.bent(checked.cells)) == (epochs not in (60, 500))
    assert all(f"scaled to recipe.epochs={epochs}" in said for said in preflight.bent(checked.cells))


def test_only_two_typed_values_contradict_each_other():
    words = ["recipe=cosine", "recipe.epochs=2", "recipe.warmup_epochs=2"]
    checked = preflight.check("distill", words, sweep=False, dirs=[config.CONF])
    assert checked.problems == ["recipe.warmup_epochs=2: must be below recipe.epochs=2"]


def test_a_teacher_of_several_and_an_assistant_bend_their_own_recipes():
    words = ["recipe=cosine", "recipe@teacher.recipe=cosine", "teachers=[resnet8,resnet14]", "assistants=[resnet20]"]
    composed("dataset=synthetic", *words, "teachers.resnet8.recipe.epochs=1", "assistants.resnet20.recipe.epochs=2")
    bad = [*words, "teachers.resnet8.recipe.epochs=1", "teachers.resnet8.recipe.warmup_epochs=1"]
    checked = preflight.check("distill", ["dataset=synthetic", *bad], sweep=False, dirs=[config.CONF])
    assert checked.problems == ["teachers.resnet8.recipe.warmup_epochs=1: must be below epochs=1"]


def test_one_protocol_holds_for_teacher_and_student():
    assert composed("recipe.protocol=paper").teacher.recipe.protocol == "paper"


@pytest.mark.parametrize("robustness", names("robustness"))
def test_every_measurement_of_robustness_composes_and_holds_every_setting_in_range(robustness):
    cfg = composed("run=x", f"robustness={robustness}", verb="evaluate")
    assert (cfg.robustness is None) == (robustness == "none")
    if cfg.robustness is not None:
        assert set(cfg.robustness) == {field.name for field in fields(config.Robustness)}
        assert tuple(cfg.robustness.corruptions) == config.CORRUPTIONS


def test_every_file_says_in_its_first_own_line_what_it_is():
    for path in Path(config.CONF).rglob("*.yaml"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
        assert path.parent.name in ("callbacks", "output") or lines[0].startswith("# "), path
