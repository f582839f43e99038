import inspect
from pathlib import Path

import pytest
import yaml

from kdrun import data

CONF = Path(__file__).parents[2] / "conf" / "dataset"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def test_all_data_sets_are_there():
    assert set(NAMES) >= {"digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "folder", "synthetic"}


def node_of(name):
    """The data set's own keys, beside whatever else the file composes."""
    whole = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return whole.get("dataset", whole)


@pytest.mark.parametrize("name", NAMES)
def test_the_keys_of_the_file_are_the_arguments_of_the_function(name):
    node = node_of(name)
    keys = set(node) - {"use", "defaults"}
    arguments = set(inspect.signature(data.find(node["use"])).parameters) - {"name"}
    assert keys - {"crop_padding", "flip"} == arguments
    assert {"val_fraction", "split_seed", "crop_padding", "flip"} <= keys


@pytest.mark.parametrize("name", NAMES)
def test_the_first_comment_says_what_the_set_is(name):
    lines = (CONF / f"{name}.yaml").read_text().splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    assert first.startswith("# ") and 20 < len(first) < 110


def test_a_set_is_loaded_once_for_equal_arguments():
    arguments = {"val_fraction": 0.1, "split_seed": 0}
    first = data.load("digits.digits", name="digits", **arguments)
    assert data.load("digits.digits", name="digits", **arguments) is first
    assert data.load("digits.digits", name="digits", **{**arguments, "split_seed": 1}) is not first


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("digit.digits", "kdrun.data has no digit. Did you mean digits?"),
        ("digits.load_digits", "kdrun.data.digits has digits.digits. Did you mean digits.digits?"),
        ("mnist.data_root", "kdrun.data.mnist has mnist.fashion_mnist, mnist.mnist"),
        ("os.system", "kdrun.data has no os"),
    ],
)
def test_only_data_sets_can_be_named(use, message):
    with pytest.raises(ValueError, match=message):
        data.load(use, name="x")


def test_an_argument_that_the_set_does_not_have_is_refused():
    with pytest.raises(
        ValueError, match=r"dataset digits: got an unexpected keyword argument 'size'.*takes val_fraction"
    ):
        arguments = {"val_fraction": 0.1, "split_seed": 0}
        data.load("digits.digits", name="digits", size=3, **arguments)
