"""Help, version and listings answer at once, and say only what is true."""

import re
import subprocess
import sys

import pytest

from kdrun import __version__
from kdrun.command import helptext

COMPOSED = ["distill", "train teacher", "train baseline", "evaluate", "export"]
LISTINGS = ["answers", "predict", "report", "runs", "store", "models", "datasets", "losses"]


def loaded(desk, *words):
    """The modules that a command imports."""
    code = (
        "import runpy, sys; sys.argv = ['kdrun', *sys.argv[1:]]\n"
        "try: runpy.run_module('kdrun', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('MODULES', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=desk.folder, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize("words", [[], ["--help"], ["help"], ["train", "--help"]])
def test_help_names_every_verb(desk, words):
    output = desk.runs(*words)
    assert all(f"kdrun {verb}" in output or f" {verb}" in output for verb in COMPOSED + LISTINGS)


@pytest.mark.parametrize("verb", COMPOSED + LISTINGS)
def test_every_verb_has_help_with_an_example(desk, verb):
    output = desk.runs(*verb.split(), "--help")
    assert output.startswith(f"kdrun {verb}") and f"\n  kdrun {verb}" in output
    assert max(map(len, output.splitlines())) <= 120


def test_help_and_version_import_neither_torch_nor_hydra(desk):
    for words in (["--help"], ["distill", "--help"], ["--version"], ["models", "--help"]):
        assert not {"torch", "hydra", "omegaconf", "numpy"} & loaded(desk, *words)


def test_errors_of_composition_and_the_configuration_itself_need_no_torch(desk):
    for words in (["distill", "alhpa=0.9", "T=0"], ["distill", "-m", "T=1,x"], ["distill", "--cfg", "job"], ["nope"]):
        assert not {"torch", "torchvision", "matplotlib", "scipy"} & loaded(desk, *words)
    assert not {"torch", "hydra"} & loaded(desk, "datasets")


def test_the_version_is_told_however_it_is_asked(desk):
    assert desk.runs("--version") == desk.runs("version") == f"kdrun {__version__}\n"


@pytest.mark.parametrize("verb", ["distill", "train_teacher", "train_baseline", "evaluate", "export"])
def test_every_key_and_every_default_in_the_help_is_that_of_the_configuration(desk, verb):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from kdrun import checks, config
    from kdrun.command import groups, unread

    groups.register([config.CONF])
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        words = {"evaluate": ["run=x", "robustness=standard"], "export": ["run=x"]}
        cfg = compose(verb, words.get(verb, ["dataset=folder"]))
    known = checks.leaves(OmegaConf.to_container(cfg, resolve=False))
    sentence = helptext.VERBS[verb].partition("Examples")[0]
    nested = re.findall(r"(?<=[ '])(?:(?:teacher\.)?recipe|transfer|dataset|loss\.kd)\.[a-zA-Z_]+", sentence)
    keys = {*re.findall(r"^ +([a-zA-Z_.]+)=", sentence, re.M), *nested} - {"experiment", "budget"}
    assert {"device", "outputs"} < keys
    assert not {key.split(".")[0] for key in keys} & set(" ".join(unread.BY_VERB.get(verb, {})).split())
    assert keys <= {*known, "loss.NAME.weight", "dataset.file"}, keys - set(known)  # the latter of dataset=table
    defaults = re.findall(r"^  (seeds?|T|alpha|batch_size|device|precision|workers|force|plan)=(\S+) ", sentence, re.M)
    assert {key: value for key, value in defaults} == {key: checks.as_typed(cfg[key]) for key, _ in defaults}


def test_models_lists_every_network_with_its_size(desk):
    from kdrun import config
    from kdrun.command import groups

    listed = desk.runs("models")
    assert all(re.search(rf"^{name} ", listed, re.M) for name in groups.options("student", [config.CONF]))
    assert "84" in next(line for line in listed.splitlines() if line.startswith("resnet8 "))


@pytest.mark.parametrize("words", [["models"], ["distill", "budget=quick", "seeds=1", "device=cpu"]])
def test_no_command_waits_for_a_library_that_it_does_not_use(desk, words):
    came = loaded(desk, *words)
    assert "torch" in came and not {"torch._dynamo", "sympy", "torchvision.models"} & came


def test_models_with_a_name_shows_its_settings_and_stages(desk):
    one = desk.runs("models", "resnet8")
    assert "blocks" in one and "stage3" in one and "64×8×8" in one


def test_datasets_and_losses_list_what_can_be_chosen_with_ones_own(desk):
    settings = "use: kd.KD\nweight: null\nweighed_by: alpha\nT: 2.0\n"
    desk.write("conf/loss/mine.yaml", f"# @package loss.mine\n# my own loss\n{settings}")
    assert re.search(r"mine +alpha +my own loss", desk.runs("losses"))
    assert "T²·KL" in desk.runs("losses")
    assert "fashion_mnist" in desk.runs("datasets")
    shown = desk.runs("datasets", "cifar100")
    assert shown.startswith("cifar100: 60,000 objects, 32×32 colour, 100 classes\nsplit: 50,000 to train")
    assert "usual: recipe=cifar_240 recipe@teacher.recipe=cifar_240 student=resnet8x4 teacher=resnet32x4" in shown
    assert "  val_fraction: 0.1  # held out of the training images" in shown
    assert "cifar: there is no such data set. Did you mean cifar10" in desk.refuses("datasets", "cifar")


def test_runs_and_report_tell_what_was_done(trained):
    listed = trained.runs("runs", "--wide")
    assert "distill" in listed and "digits" in listed and "untested" in listed
    reported = trained.runs("report", "--to", "told")
    assert "digits_student" in reported
    assert {p.name for p in (trained.folder / "told").iterdir()} >= {"report.md", "report.csv", "report.json"}
