"""Experiments: each with one command, what they add to it, and how they run where their data are not."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from kdrun import config, models
from kdrun.command import experiments, groups, preflight
from kdrun.data import places
from kdrun.plan.objective import plain
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.missing import missing_table
from tests.cli.conftest import SHORT
from tests.test_conf import composed

OURS = ("missing_three", "s1_robust", "s4_fashion", "temperature", "three_percent")
OWN = "# @package _global_\n# mine\nseeds: 1\nsweep:\n  T: [1, 2.5]\nquick:\n  student.hidden: [4]\n"
EPOCHS = ["recipe.epochs=15", "teacher.recipe.epochs=15"]
NOWHERE = {"KDRUN_DATA": "nowhere", "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory):
    """A folder of experiments: `mine` is a sweep over T on digits, `bad` one that says nothing, `other` none."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "experiment").mkdir()
    files = {"mine": OWN, "bad": OWN.replace("[1, 2.5]", "3"), "other": "# @package _global_\nT: 2\n"}
    for name, text in files.items():
        (folder / "experiment" / f"{name}.yaml").write_text(text)
    groups.register([folder, config.CONF])


def additions_of(*words, verb="distill", shown=False, here=True):
    """What experiments bring to words, where their data are on this machine or not."""
    return experiments.additions(verb, words, shown=shown, here=lambda use, root: here)


def test_a_sweep_of_its_own_is_typed_with_the_experiment():
    result = additions_of("experiment=mine", "seeds=2")
    assert result.words == ["T=1,2.5"] and experiments.several(result.words)
    assert result.lines == ["experiment=mine is a sweep: -m T=1,2.5"] and result.notes == []


@pytest.mark.parametrize("typed", ["T=3", "T=3,4", "T=range(1,4)"])
def test_what_was_typed_wins_over_the_experiments_own_sweep(typed):
    assert additions_of("experiment=mine", typed).words == []


def test_a_verb_brings_only_what_it_reads():
    assert additions_of("experiment=mine", verb="train_teacher").words == []
    assert additions_of("experiment=three_percent", verb="train_baseline").words == ["transfer.fraction=0.03,1.0"]
    quick = additions_of("experiment=three_percent", "budget=quick", verb="train_teacher").words
    assert quick == ["teacher.hidden=[300,300]", "teacher.dropout=0.0"]


def test_the_configuration_alone_is_not_swept():
    assert additions_of("experiment=mine", shown=True).words == []
    assert additions_of("experiment=mine", "budget=quick", shown=True).words == ["student.hidden=[4]"]


def test_the_quick_form_comes_with_the_budget_and_says_so():
    result = additions_of("experiment=mine", "budget=quick")
    assert result.words == ["T=1,2.5", "student.hidden=[4]"]
    sentence = "budget=quick runs experiment=mine with student.hidden=[4]: a trial run, not a result"
    assert result.notes == [sentence] and result.lines == ["experiment=mine is a sweep: -m T=1,2.5", sentence]


@pytest.mark.parametrize("typed", ["teacher=mlp", "teachers=[mlp]", "teacher.from=latest"])
def test_a_teacher_that_was_typed_stands_in_the_place_of_those_swept(typed):
    assert additions_of("experiment=s4_fashion").words == [
        "teachers=[fashion_wide_cnn],[fashion_resnet],[fashion_wide_cnn,fashion_resnet]"
    ]
    assert additions_of("experiment=s4_fashion", typed).words == []


@pytest.mark.parametrize("typed", ["student=resnet8", "student.hidden=[5]", "students=[mlp]", "generations=2"])
def test_another_network_that_was_typed_is_left_alone_by_the_quick_form(typed):
    assert additions_of("experiment=mine", "budget=quick", typed).words == ["T=1,2.5"]


def test_without_its_data_an_experiment_runs_on_digits_with_the_quick_budget_alone():
    result = additions_of("experiment=s4_fashion", "budget=quick", here=False)
    assert {"dataset=digits", "teacher=digits_teacher", "student=digits_student"} < set(result.words)
    assert not any("fashion" in word or "mlp" in word for word in result.words)
    assert result.notes[0].startswith("fashion_mnist is not on this machine, so budget=quick runs")
    assert additions_of("experiment=missing_three", here=False).words == []
    assert (
        additions_of("experiment=missing_three", "budget=quick", "dataset=mnist", here=False)
        .notes[0]
        .endswith("not a result")
    )


def test_experiments_that_bring_different_words_are_no_sweep_together():
    sentence = "experiment=mine sets T=1,2.5, and not all of these experiments do; run them one at a time"
    assert additions_of("experiment=mine,other").problems == [sentence]
    assert additions_of("experiment=mine,other", "T=3").problems == []
    pairs = "experiment=cifar100/vgg13_vgg8,cifar100/resnet56_resnet20"
    assert additions_of(pairs) == experiments.Additions()
    assert "dataset=digits" in additions_of(pairs, "budget=quick", here=False).words
    assert additions_of("experiment=glob(no*)") == experiments.Additions()


def test_a_sweep_without_a_list_is_refused_and_what_does_not_compose_is_left_to_others():
    assert additions_of("experiment=bad").problems == ["experiment=bad: sweep.T needs a list of values"]
    for words in (["experiment=nope"], ["experiment=mine", "student=nope"], ["experiment=mine", "T=["], ["T=1,2"]):
        assert additions_of(*words) == experiments.Additions()


@pytest.mark.parametrize("name", OURS)
def test_each_says_what_it_asks_and_where_that_comes_from(name):
    head = (config.CONF / "experiment" / f"{name}.yaml").read_text().split("\ndefaults:")[0]
    assert "?" in head and ("Hinton, Vinyals & Dean (2015" in head or "tutorial's" in head)
    assert composed(f"experiment={name}").seeds == 6


@pytest.mark.parametrize("name", ["s4_fashion"])
def test_the_fashion_student_keeps_to_175_thousand_parameters(name):
    cfg = composed(f"experiment={name}")
    with torch.device("meta"):
        network = models.build(**plain(cfg.student), num_classes=10, in_channels=1, image_size=(28, 28), seed=0,
                               mean=(0.5,), std=(0.25,))  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) <= 175_000
    assert cfg.sweep.teachers == [["fashion_wide_cnn"], ["fashion_resnet"], ["fashion_wide_cnn", "fashion_resnet"]]
    assert cfg.loss.soft_ce.T_squared and cfg.loss.soft_ce.weighed_by == "alpha"
    assert (cfg.T, cfg.alpha) == (4.0, 1.0)  # chosen on validation: docs/results.md


def test_the_robustness_experiment_has_the_tutorials_loss_and_the_other_ones_teacher():
    cfg, other = composed("experiment=s1_robust"), composed("experiment=s4_fashion")
    assert (cfg.loss.ce.weight, cfg.loss.kd.weight, cfg.loss.kd.T, cfg.loss.kd.T_squared) == (1.0, 0.1, 10.0, False)
    assert (cfg.recipe.optimizer, cfg.recipe.lr) == ("adam", 0.001)
    assert cfg.teacher == other.teacher and cfg.dataset == other.dataset  # so that one training serves both


@pytest.mark.parametrize(("budget", "here"), [("full", True), ("quick", True), ("quick", False)])
@pytest.mark.parametrize("name", OURS)
def test_every_word_that_an_experiment_brings_holds(name, budget, here):
    words = [f"experiment={name}", f"budget={budget}"]
    own = additions_of(*words, here=here)
    checked = preflight.check("distill", [*words, *own.words], sweep=experiments.several(own.words), dirs=[config.CONF])
    assert checked.problems == [] and own.problems == []
    if budget == "quick":
        assert {cell.cfg.hydra.runtime.choices["dataset"] == "digits" for cell in checked.cells} == {not here}
        assert all(cell.cfg.seeds == 1 and max(cell.cfg.recipe.epochs, cell.cfg.teacher.recipe.epochs) <= 40
                   for cell in checked.cells)  # fmt: skip


def test_three_per_cent_of_the_images_are_seen_in_more_epochs():
    cfg = composed("experiment=three_percent", "transfer.fraction=0.03")
    assert (cfg.recipe.epochs, composed("experiment=three_percent").recipe.epochs) == (100, 30)
    assert cfg.teacher.recipe.epochs == 60


def test_a_set_is_here_when_all_its_files_are_packed_or_not(tmp_path):
    assert places.here("digits.digits", None) and not places.here("mnist.mnist", str(tmp_path))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
        (raw / name).touch()
    assert not places.here("mnist.mnist", str(tmp_path))
    (raw / "t10k-labels-idx1-ubyte").touch()
    assert places.here("mnist.mnist", str(tmp_path)) and not places.here("mnist.fashion_mnist", str(tmp_path))
    (tmp_path / "cifar-10-python.tar.gz").touch()
    assert places.here("cifar.cifar10", str(tmp_path)) and not places.here("cifar.cifar100", str(tmp_path))


def test_the_files_looked_for_are_those_that_are_read():
    from kdrun.data import cifar, mnist

    for use, files in (("mnist.mnist", mnist.MNIST_FILES), ("mnist.fashion_mnist", mnist.FASHION_FILES)):
        assert sorted(names[1].rpartition("/")[2] for names in places.FILES[use]) == sorted(file.name for file in files)
    assert places.FILES["cifar.cifar10"][0][1] == cifar.CIFAR10.archive.name
    assert places.FILES["cifar.cifar100"][0][1] == cifar.CIFAR100.archive.name


def test_an_experiment_of_ones_own_sweeps_with_one_command(desk):
    desk.write("conf/experiment/mine.yaml", OWN)
    before = desk.listing()
    output = desk.runs("distill", "experiment=mine", "plan=true", "device=cpu")
    assert output.startswith("experiment=mine is a sweep: -m T=1,2.5\n") and output.count("3 of 3 to train") == 2
    assert desk.listing() == before


def test_a_configuration_that_is_only_shown_has_the_sweep_and_the_quick_form_in_it(desk):
    desk.write("conf/experiment/mine.yaml", OWN)
    before = desk.listing()
    shown = desk.runs("distill", "--cfg", "job", "experiment=mine", "budget=quick")
    assert shown.startswith("T: 4.0\n") and "sweep:\n  T:\n  - 1\n  - 2.5\n" in shown and "hidden:\n  - 4\n" in shown
    assert desk.listing() == before


def test_what_an_experiments_file_says_of_sweeps_is_not_typed(desk):
    problems = desk.problems("distill", "sweep.T=[1,2]", "+quick.T=3", "T=0")
    assert problems[0].startswith("sweep.T=[1,2]: sweep belongs in an experiment's file")
    assert problems[1].startswith("+quick.T=3: quick belongs") and len(problems) == 3
    desk.write("conf/experiment/mine.yaml", OWN.replace("[1, 2.5]", "[1, -2]"))
    assert "T=-2: must lie in (0, inf) (in the cell T=-2)" in desk.refuses("distill", "experiment=mine")


def test_without_the_data_the_error_says_that_a_quick_one_would_run_on_digits(desk):
    output = desk.type("distill", "experiment=missing_three", "device=cpu", **NOWHERE)
    assert output.returncode == 2 and output.stderr.rstrip().endswith(
        "or see the experiment on digits with budget=quick"
    )


def test_digits_without_threes_are_recognised_once_the_offset_is_added(desk):
    words = ["experiment=missing_three", "budget=quick", "student=mlp", *EPOCHS, "report=false", "device=cpu"]
    output = desk.runs("distill", *words, **NOWHERE)
    assert output.startswith("mnist is not on this machine, so budget=quick runs experiment=missing_three on digits")
    folder = (desk.folder / "outputs" / "latest").resolve()
    record = json.loads((folder / "run.json").read_text())
    assert record["command"] == " ".join(["kdrun distill", *words])
    assert record["choices"]["dataset"] == "digits" and record["notes"][0] in output
    assert record["notes"][0] in json.loads((folder / "comparison.json").read_text())["table"]["notes"]
    comparison = Comparison([desk.folder / "outputs" / "store" / a["folder"] for a in record["artifacts"]], record)
    table = missing_table(comparison)
    teacher, baseline, student = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert float(teacher["missing %"]) > 90 and float(baseline["missing %"]) == 0
    assert float(student["with offset %"]) > 50 > float(baseline["with offset %"])
    assert float(student["all, with offset %"]) > float(student["all %"])
    assert "the 37 test images of class 3" in table.notes[0]


def test_distill_measures_robustness_where_asked_and_keeps_it_beside_the_networks(desk):
    how = ["robustness=quick", "robustness.corruptions=[blur]", "robustness.pgd=[]"]
    output = desk.runs("distill", *SHORT, *how, "report=false")
    assert "Robustness to corruptions not tested" in output and "FGSM ε=8" in output
    folder = (desk.folder / "outputs" / "latest").resolve()
    assert {"robustness.md", "robustness.json", "robustness.svg", "comparison.md"} <= {p.name for p in folder.iterdir()}
    kept = (desk.folder / "outputs" / "store").glob("*/measured/robustness-*.json")
    assert sorted(path.parents[1].name.partition("-")[0] for path in kept) == ["baseline", "student", "teacher"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["robustness=quick", "robustness.pgd=[]", "robustness.pgd_steps=3"], "has no effect with robustness.pgd=[]"),
        (["robustness=quick", "robustness.fgsm=[-1]"], "must lie in (0, 255]"),
        (["robustness.images=3"], "has no effect with robustness=none"),
    ],
)
def test_what_distill_would_not_measure_is_refused_as_by_evaluate(words, answer):
    (problem,) = preflight.check("distill", words, sweep=False, dirs=[config.CONF]).problems
    assert answer in problem


def test_every_command_of_the_results_page_can_be_typed():
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    commands = [line.partition("#")[0] for line in page.splitlines() if line.startswith("kdrun distill")]
    assert all(any(f"experiment={name} " in command for command in commands) for name in OURS)
    for command in commands:
        words = [word for word in shlex.split(command)[2:] if word != "-m"]
        own = additions_of(*words)
        assert own.problems == [] and (" -m " in command or not experiments.several(words))
        first = [_first_value(word) for word in [*words, *own.words]]
        assert preflight.check("distill", first, sweep=False, dirs=[config.CONF]).problems == [], command


def _first_value(word):
    override = OverridesParser.create().parse_override(word)
    return f"{override.key_or_group}={next(override.sweep_string_iterator())}" if override.is_sweep_override() else word
