"""What other tools call a setting or a network is answered with what to type here, and that exists."""

import re

import pytest

from kdrun import config
from kdrun.command import groups, hints, preflight
from kdrun.sweeps import launcher

WORDS = {
    "temperature=4": "Type T=4",
    "model=resnet18": "Type student=torchvision student.arch=resnet18, or teacher=torchvision teacher.arch=resnet18",
    "net=mlp": "Type student=mlp or teacher=mlp",
    "batch=32": "Type recipe.batch_size=32",
    "teacher.recipe.wd=0.1": "Type teacher.recipe.weight_decay=0.1",
    "recipe.learning-rate=0.1": "Type recipe.lr=0.1",
    "gpu=0": "Type device=cuda",
    "data_dir=photos": "Type dataset=folder dataset.root=photos",
    "resume=true": "it resumes by itself",
    "num_classes=10": "there is no key num_classes. The data set brings its classes",
    "steps=100": "Type recipe.epochs=N, or teacher.recipe.epochs=N for the teacher",
    "mixup=0.2": "Type augment=mixup",
    "pretrained=true": "Type teacher.from=FILE for a trained teacher",
    "student.target=a:B": "the chosen student has no key target; type student=external student.target=a:B",
    "dataset.on_bad_image=skip": "no key on_bad_image; it belongs to dataset=folder or dataset=table",
}
CHOICES = {
    "teacher=resnet18": "Type teacher=torchvision teacher.arch=resnet18",
    "students=[mlp,mobilenet_v2]": "students.mobilenet_v2.arch=mobilenet_v2",
    "loss=kldiv": "Type loss=kd",
    "recipe=adamw": "Type recipe=cosine recipe.optimizer=adamw",
    "dataset=./photos": "Type dataset=folder dataset.root=./photos",
    "student=my.nets:Tiny": "Type student=external student.target=my.nets:Tiny",
    "teacher=latest": "Type teacher.from=latest",
    "dataset=imagenet": "Type dataset=folder dataset.root=DIR",
    "robustness=none2": "Did you mean none?",
    "augment=cutout": "Type augment=erasing",
}


@pytest.mark.parametrize("words", [WORDS, CHOICES], ids=["keys", "choices"])
def test_the_names_of_other_tools_are_answered_with_what_to_type(desk, words):
    problems = desk.problems("distill", *words)
    for word, answer in words.items():
        assert any(answer in problem for problem in problems), (word, problems)
    assert len(problems) == len(words)


def test_flags_of_other_tools_are_answered_with_settings(desk):
    output = desk.refuses("distill", "--epochs=3", "--temperature", "4")
    assert "--epochs=3: there is no such flag. Settings are typed as KEY=VALUE. Type recipe.epochs=3" in output
    assert "--temperature: there is no such flag. Settings are typed as KEY=VALUE. Type T=…" in output


def test_what_is_suggested_for_a_key_exists():
    groups.register([config.CONF])
    launcher.register()
    values = {"dataset.root": "x", "student": "mlp", "teacher": "mlp", "loss": "kd", "experiment": "temperature"}
    answers = [answer for answer in hints._KEYS if "NAME" not in answer and "DIR" not in answer]
    words = ["dataset=folder", "student=mlp", "nowhere=1"]
    for typed in (word for answer in answers for word in re.findall(r"[\w./]+={}|[\w./]+=\w+", answer)):
        words.append(typed.replace("{}", values.get(typed[:-3], "1")))
    last = {word.partition("=")[0]: word for word in words}  # each key once: composing takes a quarter of a second
    problems = preflight.check("distill", list(last.values()), sweep=False, dirs=[config.CONF]).problems
    unknown = [problem.partition(":")[0] for problem in problems if "there is no" in problem]
    assert len(last) > 30 and unknown == ["nowhere=1"], problems  # which shows that keys are looked up


def test_torchvisions_names_are_those_of_torchvision():
    torchvision = pytest.importorskip("torchvision")
    assert sorted(hints._torchvision()) == sorted(torchvision.models.list_models(module=torchvision.models))
