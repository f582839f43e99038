"""Several commands at once, and one after the other: each training is done once."""

import os
import signal

from tests.faults.conftest import SMALL, TEACHER


def test_four_processes_want_one_teacher_and_one_trains_it(desk):
    commands = [desk.start("train", "teacher", *TEACHER, "teacher.recipe.epochs=6") for _ in range(4)]
    assert [command.wait() for command in commands] == [0] * 4
    sentence = [command.output() for command in commands]
    assert sum(": training " in text for text in sentence) == 1
    assert sum(": found " in text for text in sentence) == 3
    assert len(desk.results()) == 1
    folders = list(desk.outputs.glob("runs/train_teacher/*"))
    assert len(folders) == 4  # begun within one second, and no folder shared
    assert all((folder / "run.json").is_file() and (folder / "comparison.json").is_file() for folder in folders)


def test_a_killed_holder_is_taken_over_and_what_it_saved_is_resumed(desk):
    words = ["train", "teacher", *TEACHER, "teacher.recipe.epochs=12"]
    holder = desk.start(*words)
    holder.until("epoch 2/12")
    os.kill(holder.pid, signal.SIGSTOP)  # so that it cannot end before the waiter stands there
    waiter = desk.start(*words)
    assert f"teacher digits_teacher: waiting for process {holder.pid} on " in waiter.until(" (busy since ")
    holder.signal(signal.SIGKILL)
    assert holder.wait() == -9
    assert waiter.wait() == 0, waiter.output()
    assert "resuming after epoch" in waiter.output()


def test_the_same_spec_is_found_by_another_command_a_sweep_and_more_seeds(taught):
    output = taught.type("distill", *SMALL)
    assert "teacher digits_teacher: found" in output
    output = taught.type("train", "baseline", *[w for w in SMALL if not w.startswith("teacher")])
    assert "baseline mlp seed 0: found" in output and ": training" not in output
    output = taught.type("distill", "-m", "T=4,5", *SMALL)
    assert output.count("teacher digits_teacher: found") == 2 and output.count("baseline mlp seed 0: found") == 2
    assert output.count(": training ") == 1 and "in objective.kd.T" in output
    output = taught.type("distill", *SMALL, "seeds=2")
    assert output.count("seed 0: found") == 2 and output.count("seed 1: training") == 2 and "in seed" in output


def test_a_changed_recipe_teacher_or_source_is_a_new_spec_and_says_why(taught):
    source = taught.folder / "own.py"
    source.write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))\n"
    )
    own = ["student=external", "student.target=own:Net"]
    words = [*SMALL[:-6], *own, *SMALL[-6:]]
    words = [w for w in words if not w.startswith(("student=mlp", "student.hidden", "student.dropout"))]
    path = {"PYTHONPATH": str(taught.folder)}
    first = taught.type("distill", *words, **path)
    assert "baseline external seed 0: training" in first
    assert ": training" not in taught.type("distill", *words, **path)
    source.write_text(source.read_text().replace("nn.ReLU()", "nn.Tanh()"))
    edited = taught.type("distill", *words, **path)
    assert "teacher digits_teacher: found" in edited
    assert edited.count("in model.digest") == 2
    hotter = taught.type("distill", *words, "recipe.lr=0.004", **path)
    assert hotter.count(": training") == 2 and hotter.count("in recipe.lr") == 2
    other = taught.type("distill", *words, "teacher.seed=1", **path)
    assert "teacher digits_teacher: training" in other and "differs from" in other and "in teachers" in other
    assert "baseline external seed 0: found" in other


def test_a_changed_data_file_is_a_new_spec(desk):
    from PIL import Image

    for part, count in (("train", 12), ("test", 2)):
        for shade, name in ((40, "dark"), (200, "light")):
            folder = desk.folder / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("L", (8, 8), shade + i).save(folder / f"{i}.png")
    words = ["train", "baseline", "dataset=folder", f"dataset.root={desk.folder / 'images'}", "student=mlp", "seeds=1"]
    words += ["recipe.epochs=1", "recipe.warmup_epochs=0", "recipe.batch_size=8"]
    assert ": training" in desk.type(*words)
    assert ": found" in desk.type(*words)
    Image.new("L", (8, 8), 41).save(desk.folder / "images" / "train" / "dark" / "0.png")
    output = desk.type(*words)
    assert ": training" in output and "in data.digest" in output
