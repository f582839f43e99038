"""Hydra's own flags on a command line, and their order among the settings. Does not import torch."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import fields

from kdrun import checks, config
from kdrun.command import hints
from kdrun.console import refusal

FLAGS = ("--multirun", "-m", "--cfg", "--resolve", "--package", "--info", "--config-dir", "--hydra-help", "--help")
HYDRA_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-path", "-cp",
                          "--config-name", "-cn", "--experimental-rerun")  # fmt: skip
ROOTS = (config.Root, config.Evaluate, config.Export)  # the settings of all verbs
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")  # what --info may be followed by


def parsed(verb: str, rest: list[str]) -> argparse.Namespace:
    """Parse Hydra's own flags; refuse those that would replace the verb or contradict one another."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        args, unknown = parser.parse_known_args(rest)
    except argparse.ArgumentError as error:
        raise refusal(f"{error}; see kdrun {verb.replace('_', ' ')} --help") from None
    problems = [f"{word}: there is no such flag.{_meant(word)}" for word in unknown]
    if args.config_name or args.config_path:
        problems.append("--config-name and --config-path are set by kdrun; --config-dir DIR adds your own options")
    if args.multirun and (args.cfg or args.info):
        problems.append("-m with --cfg or --info: they show one configuration; leave -m out")
    elif sum(map(bool, (args.run, args.multirun, args.cfg, args.info, args.hydra_help))) > 1:
        problems.append("only one of --run, --multirun, --cfg, --info and --hydra-help can be specified")
    if args.resolve and not args.cfg:
        problems.append("the --resolve flag can only be used in conjunction with --cfg: type --cfg job --resolve")
    if args.resolve and args.cfg == "hydra":
        problems.append("--cfg hydra --resolve: its values refer to keys outside it; type --cfg all --resolve")
    if args.package and not args.cfg:
        problems.append(f"--package {args.package}: selects a part of what --cfg shows; add --cfg job")
    if args.experimental_rerun:
        problems.append("--experimental-rerun reads a pickle; type the command in the run's run.json again instead")
    if args.config_dir is not None and not os.path.isdir(args.config_dir):
        problems.append(f"--config-dir {args.config_dir}: there is no such folder")
    if problems:
        raise refusal(*problems)
    return args


def _meant(word: str) -> str:
    """Return what an unknown flag may mean: a setting that other tools take as a flag, or the nearest of the flags."""
    key, _, value = word.lstrip("-").partition("=")
    if meant := hints.for_key(key, value or "…"):
        return f" Settings are typed as KEY=VALUE. {meant}"
    name = key.replace("-", "_")
    if name.partition(".")[0] in {field.name for schema in ROOTS for field in fields(schema)}:
        return f" Settings are typed as KEY=VALUE. Type {name}={value or '…'}"
    return f"{checks.nearest(word, FLAGS)} Available: {', '.join(FLAGS)}"


def with_run(verb: str, rest: list[str]) -> list[str]:
    """Write the RUN of `kdrun evaluate RUN`, the one word that is neither a setting nor a flag, as run=RUN."""
    out, takes_value = [], False
    for word in rest:
        if not word.startswith("-") and "=" not in word and not takes_value:
            # quote what Hydra would not parse as a string; 12e5, a possible fingerprint, would be a number
            quoted = re.search(r"[ ,()\[\]{}']", word) or re.fullmatch(r"\d+e\d+", word)
            word = "run=" + ("'" + word.replace("'", r"\'") + "'" if quoted else word)
        out.append(word)
        takes_value = word in HYDRA_FLAGS_WITH_VALUE
    if not any(word.startswith("run=") for word in out) and not {"--cfg", "-c", "--info", "--hydra-help"} & set(out):
        raise refusal(f"kdrun {verb}: which run? Type kdrun {verb} RUN (kdrun runs lists them), or latest")
    return out


def flags_first(rest: list[str]) -> list[str]:
    """Put flags and their values before the settings: Hydra's parser loses settings if flags stand between them."""
    flags: list[str] = []
    settings: list[str] = []
    takes_value = info = False
    for word in rest:
        if info and word in INFO:
            flags[-1] = f"--info={word}"
        else:
            (flags if takes_value or word.startswith("-") else settings).append(word)
        takes_value, info = word in HYDRA_FLAGS_WITH_VALUE, word in ("--info", "-i")
        if info:
            flags[-1] = "--info=all"  # without a value, --info would take the next setting as its value
    return flags + settings
