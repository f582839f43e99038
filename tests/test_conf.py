"""Every file under conf/ composes, and what it chooses is what it says."""

import functools
from dataclasses import fields
from pathlib import Path

import pytest

from kdrun import config
from kdrun.command import groups, preflight


@pytest.fixture(scope="module", autouse=True)
def dirs():
    folders = groups.user_dirs()
    groups.register(folders)
    return folders


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
    of_teacher = "long" if recipe == "patient" else recipe  # patient chooses the student's loss and augmentation too
    cfg = composed(f"recipe={recipe}", f"recipe@teacher.recipe={of_teacher}", "teacher.recipe.epochs=77")
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
    assert len(preflight.scaled_defaults(checked.cells)) == (epochs not in (60, 500))
    assert all(f"scaled to recipe.epochs={epochs}" in sentence for sentence in preflight.scaled_defaults(checked.cells))


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


# temperature, weight and, for DKD, β before the weight, as the authors of standardised logits name their logs
STANDARDISED = {
    "resnet32x4_resnet8x4": ((2, 9), (2, 9, 8)),
    "resnet32x4_shufflenetv2": ((2, 9), (2, 9, 8)),
    "resnet32x4_shufflenetv1": ((2, 9), (2, 9, 8)),  # no log: what is usual
    "resnet56_resnet20": ((2, 9), (3, 18, 2)),
    "resnet110_resnet32": ((2, 9), (2, 15, 2)),
    "resnet110_resnet20": ((4, 12), (2, 15, 2)),
    "vgg13_vgg8": ((3, 9), (2, 15, 2)),
    "vgg13_mobilenetv2": ((3, 9), (3, 9, 2)),
    "resnet50_mobilenetv2": ((3, 1), (2, 15, 2)),
    "wrn_40_2_wrn_16_2": ((2, 9), (2, 12, 2)),
    "wrn_40_2_wrn_40_1": ((2, 9), (2, 12, 2)),
}


@functools.cache
def standardised(experiment):
    """Compose a pair once for what several tests ask of it."""
    return composed(f"experiment={experiment}", "loss=[ls,dkd_ls]")


@pytest.mark.parametrize("pair", STANDARDISED)
def test_standardised_logits_have_the_temperature_and_weight_of_the_pair(pair):
    ls, dkd_ls = STANDARDISED[pair]
    loss = standardised(f"cifar100/{pair}").loss
    assert (loss.ls.T, loss.ls.weight, loss.ls.hard_weight) == (*ls, 0.1)
    assert (loss.dkd_ls.T, loss.dkd_ls.weight, loss.dkd_ls.beta, loss.dkd_ls.alpha) == (*dkd_ls, 1)


PAIRS = [name for name in names("experiment") if name.startswith("cifar100/")]


@pytest.mark.parametrize("pair", PAIRS)
def test_what_is_reported_of_a_pair_says_what_by_whom_and_of_which_epoch(pair):
    cfg, losses = standardised(pair), names("loss")
    for block in cfg.reported:
        assert set(block) == {"source", "epoch", "top1"} and block.epoch in ("last", "best", None)
        assert set(block.top1) <= {"teacher", "baseline", *losses}
        assert all(55 < value < 81 for value in block.top1.values())
    crd = cfg.reported[0].top1
    head = (config.CONF / "experiment" / f"{pair}.yaml").read_text().splitlines()[1]
    assert f"alone {crd.teacher:.2f} and {crd.baseline:.2f} %" in head


def test_the_reported_numbers_are_those_of_the_papers():
    """Typed from the tables of Tian et al. 2020, Zhao et al. 2022 and Sun et al. 2024."""
    reported = standardised("cifar100/wrn_40_2_wrn_40_1").reported
    crd = reported[0].top1
    assert (crd.teacher, crd.baseline, crd.kd, crd.crd) == (75.61, 71.98, 73.54, 74.14)
    assert {block.epoch: dict(block.top1) for block in reported[3:]} == {
        "last": {"ls": 74.20, "dkd_ls": 74.60}, "best": {"ls": 74.56, "dkd_ls": 74.93},
    }  # fmt: skip
    assert standardised("cifar100/resnet50_vgg8").reported[0].top1.crd == 74.30


def test_no_reported_number_is_read_where_no_experiment_is_chosen():
    assert composed().reported == []
