"""Random command lines: verbs, keys and values of kdrun's own, hostile ones, and small damage to either.

Each is answered by everything that comes before a training: its words are read, composed and checked, and losses and
networks are built; what would train is left out.
"""

import contextlib
import functools
import json
import os
import random
from pathlib import Path
from unittest import mock

from hydra import compose, initialize_config_dir

from kdrun import checks, config
from kdrun.command import groups, roles
from kdrun.data.download import NotHere
from kdrun.sweeps import launcher
from tests.fuzz.kinds import Kind
from tests.fuzz.results import Refused, typed

VERBS = [("train", "teacher"), ("train", "baseline"), ("distill",), ("distill",), ("evaluate",), ("export",)]
LISTINGS = [("runs",), ("report",), ("models",), ("datasets",), ("losses",), ("predict",), ("help",), ("train",), ()]
FLAGS = ["-m", "-m", "--cfg", "job", "--resolve", "--info", "--help", "-h", "--version", "--package", "--config-dir",
         "--hydra-help", "--config-name", "-x", "--", "-", "--shell-completion", "--run"]  # fmt: skip
CHOICES = {
    "dataset": ["digits", "synthetic", "folder", "mnist", "nosuch", "digits,synthetic", "null", "[digits]"],
    "teacher": ["mlp", "digits_student", "resnet8", "external", "torchvision", "nosuch", "mlp,resnet8"],
    "student": ["mlp", "digits_student", "cnn", "external", "''", "[mlp]"],
    "loss": ["kd", "dkd", "[kd,at]", "[]", "crd", "dml", "kd,dkd", "[kd,kd]", "fitnet", "nosuch", "ce"],
    "recipe": ["quick", "cosine", "folder", "nosuch"], "budget": ["quick", "full", "x"],
    "experiment": ["nosuch", "null"],
    "robustness": ["none", "quick", "nosuch"], "hydra/launcher": ["basic", "gpus", "slurm", "x"],
    "hydra/sweeper": ["basic", "optuna", "x"], "teachers": ["[mlp,resnet8]", "[]"], "students": ["[mlp]", "mlp"],
}  # fmt: skip
PLACES = {  # settings that name where something is written: only places inside of the folder are typed
    "outputs": ["outputs", "o", "a/b/c", "notes.txt", "notes.txt/x", "~nobody/x", "é ü", "x" * 300, "x/" * 900,
                "${x}", "''"],
    "to": ["made", "notes.txt", "a/b", "~", "''", "x" * 300],
    "hydra.run.dir": ["here", "${outputs}/x", "${nosuch}"], "hydra.sweep.dir": ["there", "${hydra:job.num}"],
}  # fmt: skip
TARGETS = ["os:system", "logging:os.system", "net:Net", "nosuch:X", "torchvision.models:resnet18", "x", "builtins:exec",
           "subprocess:run", "notes:X", "torch.nn:Linear", "::", "kdrun.cli:main"]  # fmt: skip
VALUES = [
    "0", "1", "-1", "4", "0.5", "1e30", "1e-30", "nan", "inf", "-inf", "1e999", "9" * 30, "9" * 5000, "true", "null",
    "''", "x", "[1,2]", "[]", "{}", "{a:1}", "[[1],[2]]", "1,2", "1,", ",", "range(1,4)", "choice(1,2)", "???", "é",
    "interval(0,1)", "glob(q*)", "sort(1,2)", "${T}", "${nosuch}", "${oc.env:NOSUCH}", "${oc.decode:'['}", "${", "$",
    "${oc.decode:${T}}", "${hydra:x}", "${kdrun.scaled:1,2}", "${kdrun.scaled:x,y}", "\udcff", "a b", "'a b'", "\"",
    "\\", "'", "x" * 5000, "!!python/object:os.system", "*x", "&x", "weights.pt", "notes.txt", "pipe", ".", "../x",
    "/dev/zero", "weights.pt:x", "latest", "1_000", "0x10", "1:30", "on", "~", "[" * 50, "[" * 3000, "{a:{a:{a:1}}}",
    "2026-01-01", "T=1",
]  # fmt: skip


SWEPT = 15.0  # seconds: a sweep builds the networks of each of its cells


@functools.cache
def keys(verb: str) -> list[str]:
    """Return the keys that a verb takes."""
    groups.register(groups.user_dirs())
    launcher.register()
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        cfg = compose(verb, return_hydra_config=True)
    return sorted(key for key in checks.leaves(roles.values(cfg)) if not key.startswith("hydra.runtime"))


def _registered(_) -> None:
    """Stand for what every process does once, and keys() has done."""


def words(rng: random.Random) -> list[str]:
    """Return a random command line."""
    if rng.random() < 0.15:
        line = list(rng.choice(LISTINGS))
        line += [
            rng.choice([*VALUES, "--outputs", "--json", "latest", "digits", "mlp"]) for _ in range(rng.randrange(3))
        ]
        return [word for word in line if "/dev/" not in word]
    verb = rng.choice(VERBS)
    own = keys("_".join(verb))
    line = [*verb, *(["latest"] if verb[0] in config.MEASURING and rng.random() < 0.7 else [])]
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        line.append(_setting(own, rng))
    if rng.random() < 0.15:
        line.insert(rng.randrange(len(line) + 1), "-m")
    for _ in range(rng.choice((0, 0, 0, 0, 1, 2))):
        line.insert(rng.randrange(len(line) + 1), rng.choice(FLAGS))
    return line


def _setting(own: list[str], rng: random.Random) -> str:
    kind = rng.randrange(10)
    if kind < 3:
        group = rng.choice(list(CHOICES))
        word = f"{group}={rng.choice(CHOICES[group])}"
    elif kind == 3:
        key = rng.choice(list(PLACES))
        return f"{key}={rng.choice(PLACES[key])}"
    elif kind == 4:
        role = rng.choice(("teacher", "student"))
        return f"{role}={rng.choice(('external', 'external', 'mlp'))} {role}.target={rng.choice(TARGETS)}"
    else:
        word = f"{rng.choice(own)}={rng.choice(VALUES)}"
    if word.partition("=")[0] in PLACES:
        return "seeds=1"
    return _damaged(word, rng) if rng.random() < 0.25 else word


def _damaged(word: str, rng: random.Random) -> str:
    """Return a word with another character, one more or one less, a prefix of Hydra's, or doubled."""
    place = rng.randrange(len(word) + 1)
    return rng.choice((
        word[:place] + rng.choice("\"'{}[]$,:=~+@\\ .é\t%") + word[place:],
        word[:place] + word[place + 1 :],
        "+" + word, "++" + word, "~" + word, word.partition("=")[0], f"={word}", word * 2, word.replace("=", "@x="),
    ))  # fmt: skip


class Commands(Kind):
    """Command lines as a kind of input: the words lie in words.json."""

    def input(self, rng: random.Random) -> dict[str, bytes]:
        """Return the files of a working folder, with the words to be typed there."""
        line = [part for word in words(rng) for part in (word.split(" ") if ".target=" in word else [word])]
        return {**self.files, "words.json": json.dumps(line).encode()}


def kind(weights: bytes) -> Kind:
    """Return command lines as a kind of input."""
    files = {
        "notes.txt": b"text", "weights.pt": weights, "words.json": b'["losses"]',
        "net.py": b"import torch\nclass Net(torch.nn.Module):\n    pass\n",
    }  # fmt: skip
    return Commands("command lines", _read, files, ["words.json"], (Refused,), limit=SWEPT)


def _read(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    keys("distill")  # registers kdrun's groups with Hydra, once
    line = json.loads((folder / "words.json").read_text())
    absent = NotHere("the set is not on this machine: name its folder with KDRUN_DATA")
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("kdrun.sweeps.run.run", lambda *_, **__: 0))
        stack.enter_context(mock.patch("kdrun.command.groups.register", _registered))
        stack.enter_context(mock.patch("kdrun.data.download.fetch", side_effect=absent))
        stack.enter_context(mock.patch("kdrun.verbs.report._page", return_value="the page"))
        home = {"KDRUN_DATA": str(folder / "data"), "KDRUN_CACHE": str(folder / "cache"), "HOME": str(folder / "home")}
        stack.enter_context(mock.patch.dict(os.environ, home))
        stack.enter_context(mock.patch("sys.argv", ["kdrun", *line]))
        return typed(*line)
