"""What was meant by a key or a choice that kdrun does not have: the names that other tools use. Knows no torch."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from kdrun import checks
from kdrun.command.groups import CASTS, NETWORKS

_KEYS = {  # what to type -> the names that people use for it; of a recipe's keys, its last part
    "T={}": "temp temperature tau",
    "alpha={}": "lambda lam kd_weight distill_weight distillation_weight soft_weight",
    "recipe.lr={}": "lr learning_rate learningrate base_lr",
    "recipe.batch_size={}": "batch batchsize batch_size bs",
    "recipe.epochs={}": "epoch epochs num_epochs n_epochs max_epochs",
    "recipe.weight_decay={}": "wd weight_decay weightdecay decay l2",
    "recipe.momentum={}": "momentum",
    "recipe.optimizer={}": "optim optimizer optimiser opt",
    "recipe.schedule={}": "scheduler sched lr_scheduler lr_schedule",
    "recipe.warmup_epochs={}": "warmup",
    "recipe.label_smoothing={}": "smoothing",
    "recipe.clip_norm={}": "grad_clip gradient_clip clip clip_grad max_norm clip_grad_norm",
    "recipe.ema_decay={}": "ema",
    "recipe.patience=5": "early_stopping early_stop",
    "seeds={}": "n_seeds num_seeds runs n_runs repeats trials",
    "seed={}": "random_seed random_state manual_seed",
    "workers={}": "num_workers n_workers",
    "outputs={}": "output output_dir out out_dir save_dir save_path log_dir logdir results",
    "device=cuda, or device=cuda:0 for one of several": "gpu gpus cuda accelerator ngpu",
    "precision=bf16 (or tf32)": "amp fp16 bf16 half mixed_precision dtype",
    "teacher.from={}": "checkpoint ckpt ckpt_path pretrained teacher_checkpoint teacher_ckpt teacher_weights",
    "teacher={}": "teacher_model teacher_arch",
    "student={} or teacher={}": "model net network arch backbone",
    "student={}": "student_model student_arch",
    "loss={}": "criterion method distiller kd_loss loss_fn",
    "dataset=folder dataset.root={}": "data data_dir data_path data_root dataset_dir root image_dir images path",
    "dataset.val_fraction={}": "val_split validation_split val_size val_fraction",
    "transfer.fraction={}": "fraction subset train_fraction data_fraction",
    "dataset.flip=true dataset.crop_padding=4": "augment augmentation aug",
    "tracker=tensorboard, tracker=mlflow or tracker=wandb": "logger log wandb mlflow tensorboard",
    "hydra/launcher=gpus": "ddp distributed parallel",
    "the same command again: it resumes by itself": "resume resume_from resume_from_checkpoint",
}  # fmt: skip
LONGEST = 200  # characters; a longer word names no file
_CHOICES = {  # a group -> what to choose -> the names that people use for it
    "loss": {
        "kd": "kl kld kl_div kldiv hinton vanilla distillation logit logits",
        "mse_logits": "mse l2 regression",
        "at": "attention attention_transfer",
        "fitnet": "fitnets hint hints",
        "crd": "contrastive",
        "dml": "mutual deep_mutual_learning",
        "reverse_kd": "reverse_kl rkl",
        "ls": "standardized logit_standardization mlkd",
    },
    "recipe": {
        "cosine recipe.optimizer=sgd": "sgd",
        "cosine recipe.optimizer=adam": "adam",
        "cosine recipe.optimizer=adamw": "adamw",
    },
}


def for_key(key: str, value: str) -> str | None:
    """Return what to type for a key that another tool has, or None."""
    parent, _, last = key.replace("-", "_").rpartition(".")
    for answer, names in _KEYS.items():
        own = answer.partition("{")[0].rpartition(".")[0]
        if last.lower() not in names.split() or parent not in ("", own, "train", "training", f"teacher.{own}"):
            continue
        answer = answer.replace("{}", value)
        if own == "recipe" and parent == "teacher.recipe":
            return f"Type teacher.{answer}"
        return f"Type {answer}" + (f", or teacher.{answer} for the teacher" if own == "recipe" and not parent else "")
    return None


def elsewhere(key: str, files: Callable[[str], Mapping[str, Path]]) -> str | None:
    """Return which choices of a network or a data set have a key that the chosen one has not, or None.

    `files` returns the files of a group's choices, by name.
    """
    place, _, own = key.partition(".")
    if place not in ("student", "teacher", "dataset") or not own:
        return None
    having = []
    for name, path in files("model" if place in NETWORKS else place).items():
        content = yaml.safe_load(path.read_text()) or {}
        if own.partition(".")[0] in content.get(place, content):
            having.append(name)
    if not having or len(having) > 6:  # what so many have is no sign of any
        return None
    return f"the chosen {place} has no key {own}; it belongs to {' or '.join(f'{place}={name}' for name in having)}"


def for_choice(group: str, value: str, names: Sequence[str]) -> str | None:
    """Return what to type for a choice that does not exist: a file, a folder, a name of torchvision's or of others."""
    single = group.removesuffix("s") if group in CASTS else group
    for answer, known in _CHOICES.get(group, {}).items():
        if value.lower().replace("-", "_") in known.split() and answer.split()[0] in names:
            return f"Type {group}={answer}"
    if group in NETWORKS and value in _torchvision():
        if group == single:
            return f"Type {group}=torchvision {group}.arch={value}"
        return f"Type +{group}@{group}.{value}=torchvision {group}.{value}.arch={value} beside {group}=[…]"
    if len(value) > LONGEST:
        return None
    path = Path(value).expanduser()
    if single == "dataset" and path.suffix.lower() in (".csv", ".tsv", ".parquet"):
        return f"Type dataset=table dataset.file={value}"
    if single == "dataset" and (path.exists() or "/" in value):
        return f"Type dataset=folder dataset.root={value}"
    if single == "teacher" and value == "latest":
        return "Type teacher.from=latest"
    if single == "teacher" and checks.file_and_entry(value):
        return f"Type teacher.from={value}, and teacher=NAME for its network"
    if single == "student" and checks.file_and_entry(value):
        return f"Type student=NAME student.weights={value}"
    if re.fullmatch(r"[\w.]+:\w+", value):
        if group in NETWORKS:
            return f"Type {single}=external {single}.target={value}"
        return f"Write a file conf/{group}/NAME.yaml with the line use: {value}, and type {group}=NAME"
    return None


def _torchvision() -> list[str]:
    """Return the names of torchvision's classification networks, read from its files: importing it takes seconds."""
    spec = importlib.util.find_spec("torchvision")
    folder = Path(spec.origin).parent / "models" if spec and spec.origin else Path()
    made = r"^@register_model\([^)]*\)\n(?:@.*\n)*def (\w+)\("
    return [name for file in folder.glob("*.py") for name in re.findall(made, file.read_text(), re.MULTILINE)]
