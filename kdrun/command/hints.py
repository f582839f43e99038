"""Hints for keys and choices that kdrun does not have but other tools do. Does not import torch."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from kdrun import checks
from kdrun.command.groups import CASTS, NETWORKS, folders

_KEYS = {  # what to type, or a sentence -> the names that other tools use, of which only the last part is compared
    "T={}": "temp temperature tau t kd_t kd_temp kd_temperature softmax_temperature",
    "alpha={}": "lambda lam a kd_weight kd_alpha kd_lambda distill_alpha distill_weight distillation_weight "
    "soft_weight teacher_weight",
    "recipe.lr={}": "lr learning_rate learningrate base_lr",
    "recipe.batch_size={}": "batch batchsize batch_size bs minibatch train_batch_size",
    "recipe.epochs={}": "epoch epochs num_epochs n_epochs max_epochs",
    "recipe.epochs=N": "steps max_steps num_steps iterations iters max_iters",
    "recipe.weight_decay={}": "wd weight_decay weightdecay decay l2",
    "recipe.momentum={}": "momentum",
    "recipe.nesterov={}": "nesterov",
    "'recipe.betas=[0.9,0.999]'": "beta1 beta2 betas",
    "recipe.optimizer={}": "optim optimizer optimiser opt",
    "recipe.schedule={}": "schedule scheduler sched lr_scheduler lr_schedule",
    "recipe.schedule=multistep 'recipe.milestones=[15,25]'": "step_size lr_step lr_steps decay_epochs milestones",
    "recipe.gamma={}": "gamma lr_decay lr_gamma",
    "recipe.warmup_epochs={}": "warmup",
    "recipe.label_smoothing={}": "smoothing label_smoothing label_smooth ls",
    "recipe.clip_norm={}": "grad_clip gradient_clip clip clip_grad max_norm clip_grad_norm",
    "recipe.ema_decay={}": "ema",
    "recipe.patience={}": "patience",
    "recipe.patience=5": "early_stopping early_stop",
    "seeds={}": "n_seeds num_seeds runs n_runs num_runs repeats replicates trials",
    "seed={}": "random_seed random_state manual_seed",
    "workers={}": "num_workers n_workers",
    "outputs={}": "output output_dir out out_dir save_dir save_path log_dir logdir results",
    "hydra.run.dir=DIR for a folder of your own; kdrun runs KEY=VALUE finds a run by its settings": "name run_name "
    "exp_name experiment_name project tag tags",
    "device=cuda, or device=cuda:0 for one of several": "gpu gpus cuda accelerator ngpu use_cuda use_gpu device_id",
    "device=cpu": "cpu no_cuda",
    "precision=bf16 (or tf32)": "amp fp16 bf16 half mixed_precision dtype",
    "compile=true": "torch_compile jit",
    "teacher.from={}": "checkpoint ckpt ckpt_path teacher_checkpoint teacher_ckpt teacher_weights teacher_path load "
    "load_path load_from",
    "teacher.from=FILE for a trained teacher, or teacher.weights=DEFAULT with teacher=torchvision": "pretrained",
    "teacher={}": "teacher_model teacher_arch",
    "student={} or teacher={}": "model net network arch backbone",
    "student={}": "student_model student_arch",
    "'teachers=[NAME,NAME]'": "ensemble n_teachers num_teachers",
    "'assistants=[{}]'": "assistant ta teacher_assistant",
    "generations={}": "born_again ban",
    "loss={}": "criterion method distiller kd_loss loss_fn",
    "loss.NAME.student_layers and loss.NAME.teacher_layers (kdrun models NAME has their names)": "layers "
    "feature_layers hint_layer hint_layers student_layers teacher_layers",
    "dataset=folder dataset.root={}": "data data_set dataset_name data_dir data_path data_root dataset_dir root "
    "image_dir images path",
    "dataset=folder dataset.size={}": "size image_size img_size input_size resolution",
    "dataset=folder dataset.test_fraction={}": "test_size test_split test_fraction",
    "dataset.val_fraction={}": "val val_split validation_split val_size val_fraction holdout",
    "The data set brings its classes": "num_classes n_classes classes",
    "Every epoch is measured on validation": "val_every eval_every val_interval eval_interval",
    "transfer.fraction={}": "fraction subset train_fraction data_fraction",
    "transfer.fraction=0.1, a share of the training images": "limit train_limit max_samples n_train num_train",
    "augment={}": "augmentation aug transforms",
    "augment=crop_flip dataset.crop_padding=4": "crop random_crop",
    "augment=crop_flip dataset.flip=true": "hflip horizontal_flip",
    "augment=mixup": "mixup mixup_alpha",
    "augment=cutmix": "cutmix cutmix_alpha",
    "augment=randaugment": "randaugment rand_augment autoaugment auto_augment",
    "augment=trivial": "trivialaugment trivial_augment",
    "augment=erasing": "random_erasing cutout reprob",
    "experiment={}": "exp preset",
    "plan=true": "dry_run dryrun debug",
    "force=true": "overwrite retrain rerun no_cache",
    "checkpoint_every=5epochs": "save_every save_freq save_interval checkpoint_freq checkpoint_interval",
    "tracker=tensorboard, tracker=mlflow or tracker=wandb": "logger log wandb mlflow tensorboard",
    "torchrun --nproc-per-node N -m kdrun … for one training on several GPUs, -m hydra/launcher=gpus for a "
    "sweep on them": "ddp distributed parallel n_jobs jobs num_gpus n_gpus",
    "the same command again: it resumes by itself": "resume resume_from resume_from_checkpoint",
}  # fmt: skip
LONGEST = 200  # characters; a longer word names no file
_CHOICES = {  # a group -> what to choose -> the names that people use for it
    "loss": {
        "kd": "kld kl_div kldiv hinton vanilla distillation logit logits",
        "mse_logits": "mse l2 regression",
        "at": "attention attention_transfer",
        "fitnet": "fitnets hint hints",
        "crd": "contrastive",
        "dml": "mutual deep_mutual_learning",
        "reverse_kd": "reverse_kl rkl",
        "ls": "standardized logit_standardization",
        "js": "jsd jensen_shannon",
        "mlkd": "mlld multi_level multilevel multi_level_kd",
        "abkd": "ab alpha_beta",
    },
    "augment": {
        "crop_flip": "crop flip standard basic default",
        "randaugment": "autoaugment auto rand_augment ra",
        "trivial": "trivialaugment trivial_augment ta ta_wide",
        "erasing": "cutout random_erasing",
        "[mixup,cutmix]": "mixup_cutmix both",
    },
    "dataset": {
        "folder dataset.root=DIR": "imagenet imagenet1k tiny_imagenet imagefolder image_folder custom",
        "fashion_mnist": "fashion fashionmnist fmnist",
        "digits": "sklearn sklearn_digits",
        "synthetic": "random fake dummy",
    },
    "recipe": {
        "cosine recipe.optimizer=sgd": "sgd",
        "cosine recipe.optimizer=adam": "adam",
        "cosine recipe.optimizer=adamw": "adamw",
    },
}


def for_key(key: str, value: str) -> str | None:
    """Return what to type in place of another tool's key, or None."""
    parent, _, last = key.replace("-", "_").rpartition(".")
    for answer, names in _KEYS.items():
        own = answer.partition("{")[0].rpartition(".")[0]
        if last.lower() not in names.split() or parent not in ("", own, "train", "training", f"teacher.{own}"):
            continue
        if last.lower() in ("model", "net", "network", "arch", "backbone") and value in _torchvision():
            answer = "student=torchvision student.arch={}, or teacher=torchvision teacher.arch={}"
        answer = answer.replace("{}", value)
        if answer[0].isupper() and not answer.startswith("T="):
            return answer
        if own == "recipe" and parent == "teacher.recipe":
            return f"Type teacher.{answer}"
        return f"Type {answer}" + (f", or teacher.{answer} for the teacher" if own == "recipe" and not parent else "")
    return None


def elsewhere(key: str, word: str, files: Callable[[str], Mapping[str, Path]]) -> str | None:
    """Return which networks or data sets have the key of `word` that the chosen one lacks, or None.

    `files` returns the files in a folder of conf/, by name.
    """
    place, _, own = key.partition(".")
    if place not in ("student", "teacher", "dataset") or not own:
        return None
    having = []
    for name, path in (item for folder in folders(place) for item in files(folder).items()):
        content = yaml.safe_load(path.read_text()) or {}
        if own.partition(".")[0] in content.get(place, content):
            having.append(name)
    if not having or len(having) > 6:  # a key of so many choices does not tell which one was meant
        return None
    if len(having) == 1:
        return f"the chosen {place} has no key {own}; type {place}={having[0]} {word}"
    return f"the chosen {place} has no key {own}; it belongs to {' or '.join(f'{place}={name}' for name in having)}"


def for_choice(group: str, value: str, names: Sequence[str]) -> str | None:
    """Return what to type for a choice that does not exist, such as a file, a folder or a name from torchvision."""
    single = group.removesuffix("s") if group in CASTS else group
    for answer, known in _CHOICES.get(group, {}).items():
        if value.lower().replace("-", "_") in known.split() and answer.split()[0] in names:
            return f"Type {group}={answer}"
    if group in NETWORKS and value in _torchvision():
        if group == single:
            return f"Type {group}=torchvision {group}.arch={value}"
        return f"Type +{group}@{group}.{value}=torchvision {group}.{value}.arch={value} beside {group}=[…]"
    if group == "loss" and value.lower() in ("ce", "cross_entropy", "none"):
        return "Cross-entropy on the labels is always included (loss.ce.weight); kdrun train baseline uses nothing else"
    if len(value) > LONGEST:
        return None
    path = Path(value).expanduser()
    if single == "dataset" and path.suffix.lower() in (".csv", ".tsv", ".parquet"):
        return f"Type dataset=table dataset.file={value}"
    usable = path.is_dir() or path.suffix.lower() == ".zip" or ("/" in value and not path.exists())
    if single == "dataset" and usable:
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
