"""Whatever lies where kdrun reads, it is read right or refused: never a traceback, a hang, or a file outside.

The same samples, mutators and judge as `python benchmarks/fuzz.py`, with the same inputs in every run.
"""

import json
import random
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import commands, files, images, mutators, results
from tests.fuzz.judge import judge

MANY, SOME, FEW = 100, 30, 16  # inputs of a kind that is read in a millisecond, in ten, in a hundred
ALONE = {kind.name: kind for kind in [*files.alone(), *images.images(), commands.kind(files.torch_file())]}
RANDOM = st.randoms(use_true_random=False)  # its draws shrink
SEEDED = st.builds(random.Random, st.integers(0, 2**32))  # no two alike, where there are few
SLOWER = {"cache of images": SOME, "zip of images": SOME, "command lines": FEW}
RESULTS = ("result.json", "run.json", "sweep.json", "comparison.json")


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged images


@pytest.fixture(scope="module")
def folder():
    """A folder whose content is replaced for every input."""
    with tempfile.TemporaryDirectory(prefix="kdrun-fuzz-") as place:
        yield Path(place) / "input"


@pytest.fixture(scope="module")
def of_results():
    """The kinds of files that a sweep leaves, by name."""
    return {kind.name: kind for kind in results.of_results(results.outputs())}


def attack(kind, folder, inputs):
    """Judge that many damaged inputs of a kind, the same in every run."""

    @settings(
        derandomize=True, database=None, deadline=None, max_examples=inputs, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(SEEDED if inputs == FEW else RANDOM)
    def trial(rng):
        damaged = kind.input(rng)
        verdict = judge(kind, folder, damaged)
        changed = {name: content[:500] for name, content in damaged.items() if content != kind.files.get(name)}
        assert verdict.answer != "failed", f"{kind.name}: {verdict.reason}\n{changed}"

    trial()


@pytest.mark.parametrize("name", ALONE)
def test_a_damaged_input_is_read_right_or_refused(folder, name):
    attack(ALONE[name], folder, SLOWER.get(name, MANY))


@pytest.mark.parametrize("name", RESULTS)
def test_damaged_results_are_shown_right_or_refused(folder, of_results, name):
    attack(of_results[name], folder, SOME)


def newer(archive):
    """An archive whose directory asks for a version of the format that does not exist."""
    place = archive.index(b"PK\1\2") + 6
    return archive[:place] + struct.pack("<H", 255) + archive[place + 2 :]


def words(*line):
    """Command lines as their kind of input has them."""
    return lambda _: json.dumps(line).encode()


@pytest.mark.parametrize(
    ("name", "target", "damage"),
    [
        ("spec.json", "spec.json", lambda _: b"[" * mutators.NESTED),
        ("spec.json", "spec.json", lambda whole: whole.replace(b'"seed": 0', b'"seed": [' + b"[" * 900 + b"]" * 901)),
        ("spec.json", "spec.json", lambda whole: whole.replace(b'"teachers": [', b'"teachers": [[], ')),
        ("kdrun.json", "kdrun.json", lambda whole: whole.replace(b'"image_size": [', b'"image_size": [Infinity, ', 1)),
        ("kdrun.json", "kdrun.json", lambda whole: whole.replace(b'"in_channels": 1', b'"in_channels": 3')),
        ("weights of old torch", "w.pt", lambda whole: whole[:1]),
        ("weights of old torch", "w.pt", lambda whole: whole[: len(whole) // 3]),
        ("weights of torch", "w.pt", lambda whole: whole.replace(b"classifier", b"classifies")),
        ("zip of images", "images.zip", newer),
        ("command lines", "words.json", words("distill", "hydra=x")),
        ("command lines", "words.json", words("distill", f"T={'9' * 5000}")),
        ("command lines", "words.json", words("distill", "-m", "hydra.sweeper=x", "T=1,2")),
        ("command lines", "words.json", words("evaluate", "-m", "latest", "hydra.sweep.subdir=${oc.decode:'['}")),
        ("command lines", "words.json", words("export", "latest", "-m", "+hydra.sweeper.params={a:{b:1}}")),
        (
            "command lines",
            "words.json",
            words("distill", f"teacher.from={'x' * 300}.pt:x", "--config-dir", "x" * 300),
        ),
    ],
)
def test_what_once_ended_in_a_traceback_is_refused(folder, name, target, damage):
    kind = ALONE[name]
    damaged = damage(kind.files[target])
    assert damaged != kind.files[target]
    verdict = judge(kind, folder, kind.files | {target: damaged})
    assert verdict.answer == "refused", verdict
