"""Typed keys that would have no effect, because the verb or the rest of the command does not read them.

A rule has the key, the condition under which nothing reads it, and the reason to print. Does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from kdrun import checks, config
from kdrun.command import roles
from kdrun.command.overrides import group, typed

MEASURED = "kdrun evaluate RUN robustness=… measures what was trained"
BY_VERB = {  # keys that a verb never reads, although other training verbs do -> the reason, or where they belong
    "train_teacher": {
        "student students": "the teacher alone is trained",
        "recipe": "the teacher's recipe is teacher.recipe",
        "augment": "the teacher's augmentation is augment@teacher.augment=NAME",
        "loss T alpha": "the teacher learns from labels alone",
        "transfer": "the teacher always trains on everything that is not held out",
        "seed": "the teacher's seed is teacher.seed",
        "seeds": "one teacher is trained; its seed is teacher.seed",
        "teacher.from": "this command trains the teacher; only kdrun distill reads teacher.from",
        "teacher.trust": "this command trains the teacher; only kdrun distill reads teacher.trust",
        "teacher.table_gb teacher.bank.dtype teacher.bank.top_k": (
            "no student learns here; only kdrun distill reads these settings"
        ),
        "teachers": "one is trained at a time: teacher=NAME",
        "assistants generations": "distill trains them",
        "combine": "distill combines teachers",
        "robustness": MEASURED,
    },
    "train_baseline": {
        "teacher teachers assistants combine": "the baseline has no teacher",
        "generations": "with generations, the baseline is the teacher's own network, which kdrun distill trains",
        "loss T alpha": "the baseline learns from labels alone",
        "students": "one baseline is trained at a time: student=NAME",
        "robustness": MEASURED,
    },
}
# keys that replace the network which the verb would train: with them, distill would never use that network
INSTEAD = {"train_teacher": ("teacher.from", "teachers"), "train_baseline": ("students", "generations")}
# exceptions, which a verb reads although it ignores the rest of their block: teacher.recipe.protocol follows this key
READ = {"train_teacher": ("recipe.protocol",)}
# a recipe's key -> the key that decides whether it is read, and the values of that key with which it is
READ_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd",)),
    "nesterov": ("optimizer", ("sgd",)),
    "betas": ("optimizer", ("adam", "adamw")),
    "milestones": ("schedule", ("multistep",)),
    "gamma": ("schedule", ("multistep",)),
}


class Setting(NamedTuple):
    """A typed value, the composed cell that it belongs to, and the named groups that a rule's pattern matched."""

    value: Any
    cfg: DictConfig
    block: str = ""  # the beginning of the key
    rest: str = ""
    node: Any = None  # the cell's values under `block`

    def listed(self) -> str:
        """Return which list of teachers or students replaces the single one; empty without a list."""
        names = list(map(str, self.cfg[f"{self.block}s"]))
        again = f"; type {self.block}s.{names[0]}.{self.rest}" if names and self.rest else ""
        return f"{self.block}s=[{','.join(names)}], which replaces it{again}" if names else ""


Rules = Mapping[str, Callable[[Setting], Any]]  # a regular expression of the whole key -> `condition and reason`


def _read_with(decides: str, values: Sequence[str]) -> Callable[[Setting], Any]:
    """Return the rule for a recipe's key that is read only with certain values of another key."""
    belongs = f"it belongs to {' and '.join(values)}"
    return lambda s: s.node[decides] not in values and f"{s.block}.{decides}={s.node[decides]}; {belongs}"


def _measured_by(*readers: str) -> Callable[[Setting], Any]:
    """Return the rule for a key that only these robustness measurements read."""
    reason = " and ".join(f"robustness.{reader}=[]" for reader in readers)
    return lambda s: not any(s.cfg.robustness[reader] for reader in readers) and reason


TRAINING: Rules = {  # the first rule that holds for a key counts
    **{rf"(?P<block>(.+\.)?recipe)\.{key}": _read_with(*needed) for key, needed in READ_WITH.items()},
    r"dataset\.val_fraction": lambda s: (
        s.value and s.cfg.recipe.protocol == "paper" and "recipe.protocol=paper, which holds nothing out"
    ),
    r"dataset\.(crop_padding|flip)": lambda s: (
        not any("crop_flip" in augmentation for augmentation in _augmentations(s.cfg))
        and "has an effect only with crop_flip among the augmentations"
    ),
    r"transfer\.seed": lambda s: s.cfg.transfer.fraction == 1 and "transfer.fraction=1, which uses all images",
    r"(?P<block>(.+\.)?recipe)\.min_delta": lambda s: (
        s.node.patience is None and f"{s.block}.patience=null, which never stops early"
    ),
    r"teacher\.(from|seed|table_gb|(recipe|augment|bank)(\..+)?)": lambda s: (
        s.value is not None and roles.answered(s.cfg) and "teacher=answers, which trains and runs nothing"
    ),
    r"(?P<block>teacher|teachers\.[^.]+)\.recipe\.\w+": lambda s: (
        s.node["from"] is not None and f"{s.block}.from, which trains nothing"
    ),
    r"(?P<block>teacher|teachers\.[^.]+)\.trust": lambda s: (
        s.value
        and s.node["from"] is None
        and not (s.block == "teacher" and roles.answered(s.cfg))
        and f"{s.block}.from=null, where the teacher is trained here"
    ),
    r"(?P<block>teacher|student)(\.(?!(recipe|augment|seed|table_gb|bank)\b)(?P<rest>.+))?": Setting.listed,
    r"student(\..+)?": lambda s: (
        s.cfg.generations and f"generations={s.cfg.generations}, where the student is the teacher's own network"
    ),
    r"combine": lambda s: len(s.cfg.teachers) < 2 and "one teacher; type 'teachers=[NAME,NAME]' for more",
    r"teacher(?!\.table_gb|\.bank).*(?<!\.from)(?<!\.trust)": lambda s: (
        (source := s.cfg.teacher["from"]) is not None  # with the next line: it names a run or an artifact, not a file
        and checks.file_and_entry(str(source)) is None
        and "teacher.from, which determines the network"
    ),
    r"(.+\.)?recipe\.(patience|select)": lambda s: (
        s.value not in (None, config.Recipe.select)
        and (s.cfg.recipe.protocol == "paper" or not (s.cfg.dataset.val_fraction or _may_have_val(s.cfg.dataset.use)))
        and "has an effect only with validation images: type dataset.val_fraction=0.1, and recipe.protocol=heldout"
    ),
    # the parentheses make this another key than that of READ_WITH above, whose rule comes first
    r"(?P<block>(.+\.)?recipe)\.(milestones)": lambda s: (
        (late := [milestone for milestone in s.value or [] if milestone >= s.node.epochs])
        and f"{s.block}.epochs={s.node.epochs}, which ends before epoch {late[0]}; type smaller ones, or more epochs"
    ),
    r"loss\.ce\.weight": lambda s: s.value and not s.cfg.transfer.labels and "transfer.labels=false",
}
MEASURING: Rules = {
    r"robustness\.(severities|images)": _measured_by("corruptions"),
    r"robustness\.pgd_steps?": _measured_by("pgd"),
    r"robustness\.attack_images": _measured_by("fgsm", "pgd"),
    r"force": lambda s: (  # cost is a key of kdrun evaluate alone
        s.value
        and s.cfg.get("cost") is False
        and not s.cfg.robustness
        and "has an effect only with robustness=standard, robustness=quick or cost=true"
    ),
}


def _augmentations(cfg: DictConfig) -> list[DictConfig]:
    """Return the augmentations that the command reads: the student's, and the teacher's if it runs here."""
    verb = cfg.hydra.job.name
    own = [cfg.augment] if verb != "train_teacher" else []
    return own + ([cfg.teacher.augment] if verb != "train_baseline" and not roles.answered(cfg) else [])


def _may_have_val(use: str) -> bool:
    """Return whether a data set may have validation images of its own: known only once it is read."""
    return use in ("folder.folder", "table.table") or ":" in use


def ignored(verb: str, override: Override) -> tuple[str, str] | None:
    """Return the key or block of a setting that the verb never reads, and the reason; None if it reads it."""
    changed = override.package or group(override)  # recipe@teacher.recipe=NAME changes the teacher's recipe
    reasons = {key: reason for keys, reason in BY_VERB.get(verb, {}).items() for key in keys.split()}
    if changed in READ.get(verb, ()):
        return None
    return next(((p, reasons[p]) for p in (changed.partition(".")[0], changed) if p in reasons), None)


def by_verb(verb: str, override: Override) -> str | None:
    """Return why a setting that the verb never reads is refused, or None.

    Such a setting is refused if it replaces the network that the verb would train, or if it is swept: all cells would
    be the same training, in a table that shows them as different. Otherwise it is accepted, and a note names it.
    """
    if (unread := ignored(verb, override)) is None or override.value() in (None, []):
        return None
    place, reason = unread
    sentence = f"{typed(override)}: kdrun {verb.replace('_', ' ')} ignores {place}: {reason}"
    if override.is_sweep_override():
        return f"{sentence}; so these cells would be the same training; type one value, or leave it out"
    return f"{sentence}; leave it out" if place in INSTEAD.get(verb, ()) else None


def note(verb: str, overrides: Sequence[Override]) -> list[str]:
    """Return a sentence naming the settings that the verb never reads and where its own are; [] if it reads all."""
    unread = {typed(o): reason for o in overrides if (reason := ignored(verb, o)) is not None}
    if not unread:
        return []
    own = dict.fromkeys(reason for place, reason in unread.values() if place in ("recipe", "seed", "seeds"))
    remedy = f" ({'; '.join(own)})" if own else ""
    return [f"kdrun {verb.replace('_', ' ')} ignores {' '.join(unread)}, which kdrun distill reads{remedy}"]


def by_command(overrides: Sequence[Override], cfg: DictConfig) -> list[str]:
    """Return which settings a composed cell does not read: those of trainings or, if all are read, of measurements."""
    judged = ([_judged(rules, override, cfg) for override in overrides] for rules in (TRAINING, MEASURING))
    return next((problems for found in judged if (problems := [problem for problem in found if problem])), [])


def _judged(rules: Rules, override: Override, cfg: DictConfig) -> str | None:
    """Return why a setting is not read in a cell, by the first rule that holds, or None."""
    for key, rule in rules.items():
        if match := re.fullmatch(key, override.package or group(override)):  # recipe@teacher.recipe is the teacher's
            block, rest = (match.groupdict().get(part) or "" for part in ("block", "rest"))
            node = OmegaConf.select(cfg, block) if block else None
            if reason := rule(Setting(override.value(), cfg, block, rest, node)):
                lead = "" if reason.startswith("has an effect") else "has no effect with "
                return f"{typed(override)}: {lead}{reason}"
    return None


def by_losses(overrides: Sequence[Override], losses: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a problem for alpha or T if no chosen loss reads it, and for each loss whose weight is ${alpha}.

    `losses` are the chosen ones, by name, with their interpolations unresolved.
    """
    problems = [
        f"loss.{name}.weight=${{alpha}}: write weight: null and weighed_by: alpha in the loss's file, so that the "
        "labels weigh 1 - alpha"
        for name, node in losses.items()
        if node.get("weight") == "${alpha}"
    ]
    fixed = ("use", "weighed_by")
    keys = {f"loss.{name}.{key}": v for name, node in losses.items() for key, v in node.items() if key not in fixed}
    given = {key: value for key, value in keys.items() if value is not None and "$" not in str(value)}
    for override in overrides:
        own = {"alpha": "weight", "T": "T"}.get(key := group(override))
        if own is None or any(checks.reads(node, key) for node in losses.values()):
            continue
        instead = {k: f"{k}={value}" for k, value in given.items() if k.endswith(own)}
        if typed_too := [word for k, word in instead.items() if any(group(other) == k for other in overrides)]:
            why = f"{' and '.join(typed_too)} is set instead; leave out one of the two"
        elif instead:
            why = f"the loss has a value of its own, {' and '.join(instead.values())}; set that one, or leave {key} out"
        else:
            why = f"the chosen loss ({', '.join(losses)}) has none; its keys: {', '.join(keys)}"
        problems.append(f"{typed(override)}: {key} has no effect here: {why}")
    return problems
