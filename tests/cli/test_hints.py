"""What other tools call a setting or a network is answered with what to type here, and that exists."""

import re

import pytest

from kdrun import config
from kdrun.command import hints, preflight

WORDS = {
    "temperature=4": "Type T=4",
    "model=resnet18": "Type student=resnet18 or teacher=resnet18",
    "batch=32": "Type recipe.batch_size=32",
    "teacher.recipe.wd=0.1": "Type teacher.recipe.weight_decay=0.1",
    "recipe.learning-rate=0.1": "Type recipe.lr=0.1",
    "gpu=0": "Type device=cuda",
    "data_dir=photos": "Type dataset=folder dataset.root=photos",
    "resume=true": "it resumes by itself",
    "student.target=a:B": "the chosen student has no key target; type student=external student.target=a:B",
    "dataset.on_bad_image=skip": "no key on_bad_image; type dataset=folder dataset.on_bad_image=skip",
}
CHOICES = {
    "teacher=resnet18": "Type teacher=torchvision teacher.arch=resnet18",
    "students=[mlp,mobilenet_v2]": "students.mobilenet_v2.arch=mobilenet_v2",
    "loss=kl": "Type loss=kd",
    "recipe=adamw": "Type recipe=cosine recipe.optimizer=adamw",
    "dataset=./photos": "Type dataset=folder dataset.root=./photos",
    "student=my.nets:Tiny": "Type student=external student.target=my.nets:Tiny",
    "teacher=latest": "Type teacher.from=latest",
    "robustness=none2": "Did you mean none?",
}


@pytest.mark.parametrize("words", [WORDS, CHOICES], ids=["keys", "choices"])
def test_the_names_of_other_tools_are_answered_with_what_to_type(desk, words):
    problems = desk.problems("distill", *words)
    for word, answer in words.items():
        assert any(answer in problem for problem in problems), (word, problems)
    assert len(problems) == len(words)


def test_what_is_suggested_for_a_key_exists():
    for answer in hints._KEYS:
        for typed in re.findall(r"[\w./]+={}|[\w./]+=\w+", answer):
            value = {"dataset.root": "x", "student": "mlp", "teacher": "mlp", "loss": "kd"}.get(typed[:-3], "1")
            words = ["dataset=folder"] * typed.startswith("dataset.root") + [typed.replace("{}", value)]
            problems = preflight.check("distill", words, sweep=False, dirs=[config.CONF]).problems
            assert not any(p for p in problems if "there is no" in p), (typed, problems)


def test_torchvisions_names_are_those_of_torchvision():
    torchvision = pytest.importorskip("torchvision")
    assert sorted(hints._torchvision()) == sorted(torchvision.models.list_models(module=torchvision.models))
