"""What is wrong with a command's words is said before anything is made: all of it, with what to type instead.

The file is long because it is a table: one line for each wrong word, with what its answer must hold.
"""

import pytest

TYPES = [  # a word of `kdrun distill`, and what the answer to it must hold
    ("T=nan", ["finite"]),
    ("T=inf", ["finite"]),
    ("T=" + "9" * 400, ["(402 characters)", "too large"]),
    ("T=", ["needs a number", "default: 4.0"]),
    ("T=null", ["needs a number"]),
    ("T=abc", ["needs a number"]),
    ("T='4'", ["needs a number"]),
    ("T=[1,2]", ["needs a number"]),
    ("T={a:1}", ["needs a number"]),
    ("T=[1", ["quote"]),
    ("T", ["settings are typed as KEY=VALUE"]),
    ("=3", ["the key is missing"]),
    ("seeds=1.5", ["a whole number", "default: 3"]),
    ("seeds=true", ["a whole number"]),
    ("force=1", ["true or false"]),
    ("dataset.flip=maybe", ["true or false"]),
    ("recipe.clip_norm=abc", ["a number or null"]),
    ("recipe.milestones=[1.5]", ["a list such as [1,2]"]),
    ("transfer.omit_classes=9", ["a list"]),
    ("student.hidden=8", ["type 'student.hidden=[8]'"]),
    ("teacher.weights=5", ["a string (not a number) or null"]),
    ("loss.ce.weight=abc", ["a number or null"]),
    ("T=1,2", ["several values: type kdrun distill -m … for a sweep"]),
    ("columns=nll,ece", ["type 'columns=[nll,ece]' for a list, or type kdrun distill -m"]),
]
RANGES = [
    ("T=0", ["(0, inf)"]),
    ("alpha=1.5", ["[0, 1]"]),
    ("seeds=0", ["[1, 10000]"]),
    ("seed=3000000000", ["[0, 2147483648)"]),
    ("precision=fp8", ["fp32, tf32, bf16, auto"]),
    ("device=nonsense", ["auto, cpu, cuda or cuda:N"]),
    ("dataset.val_fraction=1", ["[0, 1)"]),
    ("recipe.epochs=-3", ["[1, inf)"]),
    ("teacher.recipe.lr=0", ["(0, inf)"]),
    ("recipe.optimizer=sdg", ["sgd, adam, adamw"]),
    ("recipe.betas=[0.9]", ["two numbers"]),
    ("teacher.table_gb=-1", ["[0, inf)"]),
    ("augment.views=0", ["[1, "]),
    ("teacher.bank.dtype=float8", ["float32, float16"]),
    ("teacher.bank.top_k=0", ["[1, inf)"]),
    ("transfer.fraction=0", ["(0, 1]"]),
    ("outputs='~/x'", ["type the full path"]),
]
KEYS = [
    ("alhpa=0.9", ["Did you mean alpha?", "Available: T, alpha"]),
    ("+alhpa=0.9", ["Did you mean alpha?"]),
    ("++alhpa=0.9", ["Did you mean alpha?"]),
    ("+T=3", ["type it without +"]),
    ("~T", ["cannot be removed"]),
    ("experiement=temperature", ["Did you mean experiment?"]),
    ("data=mnist", ["Type dataset=mnist"]),
    ("ddp=true", ["torchrun", "-m hydra/launcher=gpus"]),
    ("lr=0.1", ["Type recipe.lr=0.1, or teacher.recipe.lr=0.1 for the teacher"]),
    ("recipe.epoch=3", ["Type recipe.epochs=3"]),
    ("dataset.val_fractoin=0.1", ["Did you mean dataset.val_fraction", "dataset.crop_padding"]),
    ("+student.hiden=[3]", ["Did you mean student.hidden"]),
    ("loss.kd.TT=3", ["loss.kd.T"]),
    ("loss.mse_logits.weight=1", ["mse_logits is not chosen here (loss=kd)"]),
    ("hydra.run.dirr=x", ["hydra.run.dir"]),
    ("hydra.job.chdir=true", ["the folder in which the command is typed"]),
    ("hydra.mode=MULTIRUN", ["-m"]),
]
CHOICES = [
    ("student=resnet999", ["there is no such student", "Available:", "resnet8x4"]),
    ("student=resnt8", ["Did you mean resnet8"]),
    ("student=résnet8", ["quote"]),
    ("student=" + "a" * 3000, ["(3000 characters)", "there is no such student"]),
    ("dataset=fashion_mnits", ["Did you mean fashion_mnist?", "cifar10"]),
    ("loss=null", ["choose one of", "kd"]),
    ("loss=[]", ["at least one"]),
    ("loss=[nope]", ["there is no such loss", "Available:", "kd"]),
    ("loss=[kd,kd]", ["kd is listed twice", "+loss@loss.kd2=kd"]),
    ("loss={kd:1}", ["choose one by name"]),
    ("~loss", ["cannot be removed"]),
    ("recipe=[quick,cosine]", ["takes one value", "-m recipe=quick,cosine"]),
    ("student=[mlp,resnet8]", ["takes one value", "-m student=mlp,resnet8"]),
    ("experiment=no/such", ["there is no such experiment", "Available:"]),
    ("experiment=null", ["is the default; leave it out"]),
    ("recipe@foo=quick", ["recipe@teacher.recipe"]),
    ("hydra/launcher=nope", ["Available:", "basic"]),
    ("hydra/nope=x", ["there is no such"]),
]
ALONE = [
    ("T=-1", ["T=-1: must lie in (0, inf)"]),
    ("T=${nope}", ["T:", "nope"]),
    ("outputs=${nope}", ["outputs:", "nope"]),
    ("student.target=5", ["type student=external student.target=5"]),
    ("outputs=", ["outputs is empty: name a folder"]),
    ("device=cuda:999", ["device=cuda:999", "auto, cpu, cuda or cuda:N"]),
    ("loss=null", ["loss=null", "choose one of"]),
    ("hydra/launcher=nope", ["hydra/launcher=nope", "basic"]),
    ("student=external", ["student.target must be given"]),
    ("teacher.from=nonsense", ["teacher.from=nonsense", "no such run"]),
    ("teacher.from=", ["teacher.from=", "no such run"]),
    ("teacher.from=nope.pt", ["teacher.from=nope.pt: there is no such file or folder, and no such run"]),
    ("student.weights=nope.pt", ["student.weights=nope.pt: there is no file"]),
]
FLAGS = [
    (["--resolv3"], ["--resolv3", "Did you mean --resolve?"]),
    (["--seeds=6"], ["Settings are typed as KEY=VALUE. Type seeds=6"]),
    (["-c", "nope"], ["--cfg", "job", "kdrun distill --help"]),
    (["--config-dir", "nope"], ["--config-dir nope", "no such folder"]),
    (["--config-name", "evaluate"], ["--config-name", "--config-dir"]),
    (["--experimental-rerun", "x"], ["--experimental-rerun", "run.json"]),
    (["--cfg", "job", "alhpa=3"], ["Did you mean alpha?"]),
]


@pytest.mark.parametrize("words", [TYPES, RANGES, KEYS, CHOICES], ids=["types", "ranges", "keys", "choices"])
def test_every_wrong_word_of_one_command_is_answered_with_its_value_and_what_is_allowed(desk, words):
    problems = desk.problems("distill", *(word for word, _ in words))
    for word, answer in words:
        begun = [p for p in problems if p.startswith(_key_and_value(word)[:60])]
        assert any(all(part in problem for part in answer) for problem in begun), f"{word}: {problems}"
    assert len(problems) == len(words)


def _key_and_value(word):
    """A range is checked on the value, a choice name by name: without what only the shell or Hydra needs."""
    return word.replace("outputs='~/x'", "outputs=~/x").replace("[0.9]", "[0.9").replace("=[nope]", "=nope")


@pytest.mark.parametrize(("word", "answer"), ALONE, ids=[word for word, _ in ALONE])
def test_one_wrong_word_gets_one_clear_line(desk, word, answer):
    output = desk.refuses("distill", word)
    assert all(part in output for part in answer), output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(("words", "answer"), FLAGS, ids=lambda v: " ".join(v)[:30])
def test_a_wrong_flag_is_refused_with_what_there_is(desk, words, answer):
    output = desk.refuses("distill", *words)
    assert all(part in output for part in answer), output


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["recipe.optimizer=adamw", "recipe.momentum=0.5"], "recipe.optimizer=adamw; it belongs to sgd"),
        (["recipe=fashion", "recipe.betas=[0.8,0.9]"], "recipe.optimizer=sgd; it belongs to adam and adamw"),
        (["teacher.recipe.gamma=0.5"], "teacher.recipe.schedule=onecycle; it belongs to multistep"),
        (["recipe.protocol=paper", "dataset.val_fraction=0.2"], "recipe.protocol=paper, which holds nothing out"),
        (["transfer.seed=3"], "transfer.fraction=1"),
        (["recipe.schedule=multistep", "recipe.milestones=[9,150]"], "recipe.epochs=40, which ends before epoch 150"),
        (["recipe.min_delta=0.01"], "recipe.patience=null"),
        (["teacher.from=latest", "teacher.recipe.epochs=3"], "teacher.from, which trains nothing"),
        (
            ["teacher.from=latest", "teacher.recipe.optimizer=sgd", "teacher.recipe.momentum=0.5"],
            "teacher.from, which trains nothing",
        ),
    ],
)
def test_a_setting_that_the_rest_of_the_command_leaves_unread_is_refused(desk, words, answer):
    assert f"{words[-1]}: has no effect with {answer}" in desk.refuses("distill", *words)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["augment=none", "augment@teacher.augment=mixup", "dataset.flip=true"], "crop_flip among the augmentations"),
        (["dataset.val_fraction=0", "recipe.patience=3"], "validation images: type dataset.val_fraction=0.1"),
        (["dataset.val_fraction=0", "recipe.select=balanced"], "validation images: type dataset.val_fraction=0.1"),
    ],
)
def test_a_setting_that_needs_another_is_refused_with_that_one(desk, words, answer):
    assert f"{words[-1]}: has an effect only with {answer}" in desk.refuses("distill", *words)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["dataset.crop_padding=9"], "padding=9 (dataset.crop_padding): must lie in [0, 8]"),
        (["augment=[mixup,cutmix]", "loss=dkd"], "loss.dkd: reads one label of each image, but mixup and cutmix"),
    ],
)
def test_an_augmentation_that_is_nothing_for_the_images_or_the_loss_is_refused(desk, words, answer):
    assert answer in desk.refuses("distill", *words)


def test_the_rounding_of_a_bank_is_refused_where_there_is_none_and_where_it_keeps_everything(desk):
    assert len(desk.problems("distill", "teacher.bank.top_k=3", "teacher.bank.dtype=float16")) == 2
    output = desk.refuses("distill", "augment.views=2", "teacher.bank.top_k=10")
    assert "teacher.bank.top_k=10: keeps all logits of digits, which has 10 classes; type a smaller number" in output


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["loss=mse_logits", "T=3"], ["T=3", "the chosen loss (mse_logits) has none", "loss.mse_logits.weight"]),
        (["loss.kd.T=2", "T=3"], ["T=3", "loss.kd.T=2 is set instead"]),
        (["loss.kd.teacher_T=2", "loss.kd.student_T=1", "T=3"], ["loss.kd.teacher_T=2 and loss.kd.student_T=1"]),
        (
            ["loss=dkd", "alpha=0.3"],
            ["alpha=0.3", "the loss has a value of its own, loss.dkd.weight=1.0; set that one"],
        ),
        (["loss.kd.weight=2", "alpha=0.3"], ["alpha=0.3", "loss.kd.weight=2 is set instead"]),
    ],
)
def test_a_setting_that_the_chosen_loss_ignores_is_refused(desk, words, answer):
    output = desk.refuses("distill", *words)
    assert all(part in output for part in answer), output
    assert "loss.mse_logits.T" not in output  # a key that does not exist is not recommended


SETTINGS = ["T=3", "alpha=0.5", "student=mlp", "student.hidden=[4]", "loss=kd", "loss.kd.standardize=true", "seeds=1",
            "recipe.epochs=1", "teacher.recipe.epochs=1", "transfer.fraction=0.9", "device=cpu"]  # fmt: skip


def test_one_line_of_settings_serves_all_verbs_with_one_note_on_what_each_does_not_read(desk):
    plain = desk.runs("train", "teacher", "teacher.recipe.epochs=1", "device=cpu")
    assert "ignores" not in plain
    teacher = desk.runs("train", "teacher", *SETTINGS)
    note = f"kdrun train teacher ignores {' '.join(w for w in SETTINGS if not w.startswith(('teacher', 'device')))}"
    assert teacher.splitlines()[0].startswith(note) and "the teacher's recipe is teacher.recipe" in teacher
    assert teacher.count(" ignores ") == 1 and "teacher digits_teacher: found" in teacher
    baseline = desk.runs("train", "baseline", *SETTINGS)
    assert baseline.startswith(
        "kdrun train baseline ignores T=3 alpha=0.5 loss=kd loss.kd.standardize=true teacher.rec"
    )
    distilled = desk.runs("distill", *SETTINGS)
    assert "ignores" not in distilled and distilled.count(": found ") == 2


def test_what_a_verb_never_reads_is_refused_where_it_is_wrong_swept_or_names_another_network(desk):
    words = ["T=0", "recipe.epochs=x", "loss.kd.T=-1", "loss=kdd", "teachers=[mlp]", "teacher.from=latest"]
    problems = " ".join(desk.problems("train", "teacher", *words))
    for answer in ("T=0: must lie in", "recipe.epochs=x: needs a whole number", "loss.kd: T must be", "Did you mean",
                   "one is trained at a time: teacher=NAME", "teacher.from: this command trains"):  # fmt: skip
        assert answer in problems, (answer, problems)
    swept = desk.refuses("train", "teacher", "-m", "T=1,2")
    assert "T=1,2: kdrun train teacher ignores T" in swept and "would be the same training" in swept
    baseline = desk.problems("train", "baseline", "generations=2", "students=[mlp]")
    assert "student=NAME" in " ".join(baseline) and len(baseline) == 2


def test_data_and_classes_of_ones_own_are_checked_beside_all_else_that_is_wrong(desk):
    own = ["student=external", "student.target=nowhere:Tiny", "dataset=folder", "dataset.root=photos"]
    problems = desk.problems("distill", "T=0", "lr=0.1", *own)
    assert len(problems) == 4, problems
    text = " ".join(problems)
    for answer in ("T=0: must lie", "Type recipe.lr=0.1", "dataset.root=photos: there is no photos in",
                   "student=external: target=nowhere:Tiny: there is no module nowhere"):  # fmt: skip
        assert answer in text, (answer, problems)
    assert len(desk.problems("distill", *own)) == 2  # also where nothing else is wrong
    desk.write("photos/a.txt")
    (listed, *_) = [p for p in desk.problems("distill", "T=0", *own[2:]) if "photos" in p]
    assert "train/CLASS" in listed
    assert len(desk.problems("train", "teacher", "T=0", *own[2:])) == 2


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["distil"], ["distil", "Did you mean distill?", "Available: train teacher"]),
        (["trian"], ["Did you mean train?"]),
        ([""], ["'': there is no such verb"]),
        (["train"], ["kdrun train: train what?", "train teacher", "train baseline"]),
        (["distill", ""], ["'': settings are typed as KEY=VALUE"]),
        (["evaluate"], ["which run?", "kdrun runs"]),
        (["evaluate", "nope", "batch_size=0", "device=x"], ["3 problems", "batch_size=0", "device=x", "no such run"]),
        (["models", "resnt8"], ["resnt8", "Did you mean resnet8"]),
        (["losses", "x"], ["x: there is no such loss. Available: abkd"]),
        (
            ["distill", "assistants=[mlp]", "assistants.mlp.recipe.protocol=paper", "seeds=0"],
            ["2 problems", "assistants.mlp.recipe.protocol=paper and teacher.recipe.protocol=heldout: must agree"],
        ),
        (["runs", "a"], ["runs: got 1 name; type two names to compare runs"]),
        (["runs", "a", "b"], ["a: there is no such run"]),
        (["report", "nope"], ["nope", "no such run"]),
        (["report"], ["there are no runs under"]),
    ],
    ids=lambda v: " ".join(v)[:30],
)
def test_a_wrong_verb_or_name_is_refused_with_what_exists(desk, words, answer):
    output = desk.refuses(*words)
    assert all(part in output for part in answer), output


SWEEPS = [
    (["T=1,abc"], ["T=abc", "needs a number", "(in the cell T=abc)"]),
    (["T=1,-1,-2", "alpha=0.1,0.2"], ["T=-1", "(in the cell T=-1 alpha=0.1 and 1 more)", "T=-2", "2 problems"]),
    (["T=1,2", "seeds=0"], ["kdrun: seeds=0: must lie in"]),
    (["loss=kd,mse_logits", "T=2"], ["T=2", "(mse_logits)", "(in the cell loss=mse_logits)"]),
    (["loss=kd,mse_logits", "loss.kd.T=2"], ["kd is not chosen here", "(in the cell loss=mse_logits)"]),
    (["student=mlp,external"], ["student.target must be given", "(in the cell student=external)"]),
    (["T=1,2", "hydra.run.dir=x"], ["hydra.run.dir=x: has no effect in a sweep; type hydra.sweep.dir=x"]),
    (["dataset=glob(zzz*)"], ["matches nothing", "fashion_mnist"]),
    (["T=interval(1,3)"], ["T=interval(1,3)", "range(start,stop,step)"]),
    (["T=shuffle(1,3)"], ["without shuffle"]),
    (["T=range(1,10002)"], ["T=range(1,10002): more than 10,000 cells"]),
    (["seed=range(0,1e9)", "T=range(1,1e9)", "seeds=0"], ["seed=range(0,1e9): more than 10,000 cells"]),
]


@pytest.mark.parametrize(("words", "answer"), SWEEPS, ids=lambda v: " ".join(v)[:30])
def test_a_sweep_is_refused_before_its_first_cell_starts_and_names_the_cell(desk, words, answer):
    output = desk.refuses("distill", "-m", *words)
    assert all(part in output for part in answer), output


def test_a_place_that_cannot_be_written_is_refused_with_its_path(desk):
    desk.write("file")
    (desk.folder / "dangling").symlink_to("nowhere")
    assert f"{desk.folder / 'file'} is a file" in desk.refuses("distill", "outputs=file")
    assert f"{desk.folder / 'file'} is a file" in desk.refuses("distill", "outputs=file/below")
    assert f"{desk.folder / 'file'} is a file" in desk.refuses("train", "teacher", KDRUN_OUTPUTS="file")
    assert "dangling is a file" in desk.refuses("distill", "outputs=dangling")
    assert "/proc cannot be written" in desk.refuses("distill", "outputs=/proc/kdrun")
    assert "/proc cannot be written" in desk.refuses("distill", "-m", "T=1,2", "hydra.sweep.dir=/proc/kdrun")
    assert "too long" in desk.refuses("distill", f"outputs={'a' * 300}")
    assert "name a folder" in desk.refuses("distill", KDRUN_OUTPUTS="")


PRESETS = [
    ("T: -1", ["T=-1", "(0, inf)"]),
    ("alhpa: 0.5", ["experiment=x", "alhpa", "Did you mean alpha?"]),
    ("recipe:\n  epoch: 3", ["experiment=x", "epoch", "Did you mean epochs?"]),
    ("recipe:\n  epochs: abc", ["experiment=x", "recipe.epochs", "abc"]),
    ("a: b: c", ["experiment=x", "x.yaml", "line 2"]),
    ("defaults:\n  - override /loss: nope", ["experiment=x", "loss/nope", "kd"]),
    ("loss:\n  mse_logits:\n    weight: 0.5", ["loss.mse_logits is set, but loss=mse_logits is not chosen"]),
]


@pytest.mark.parametrize(("text", "answer"), PRESETS, ids=[text[:12] for text, _ in PRESETS])
def test_a_preset_of_the_users_own_is_checked_like_what_is_typed(desk, text, answer):
    desk.write("conf/experiment/x.yaml", f"# @package _global_\n{text}\n")
    output = desk.refuses("distill", "experiment=x")
    assert all(part in output for part in answer), output


def test_the_cells_that_a_preset_sweeps_are_checked_too(desk):
    desk.write("conf/experiment/x.yaml", "# @package _global_\nhydra:\n  sweeper:\n    params:\n      T: 1,-2\n")
    assert "T=-2: must lie in (0, inf) (in the cell T=-2)" in desk.refuses("distill", "-m", "experiment=x")
