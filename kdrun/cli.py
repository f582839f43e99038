"""Words to verb: finds the verb, answers help at once, runs the preflight, then hands over to Hydra or the verb.

Knows no torch. Imports Hydra only for the verbs that compose a configuration.
Exit codes: 0 done; 2 bad configuration or input; 3 a run failed; 75 interrupted and resumable; 130 second Ctrl-C.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdrun import helptext, torchrun

if TYPE_CHECKING:
    import argparse

    from omegaconf import DictConfig

    from kdrun.experiments import Brought
    from kdrun.preflight import Cell, Checked

COMPOSED = {  # the words of a verb that composes a configuration -> its name in conf/ and verbs/
    ("train", "teacher"): "train_teacher",
    ("train", "baseline"): "train_baseline",
    ("distill",): "distill",
    ("evaluate",): "evaluate",
    ("export",): "export",
}
LISTING = ("predict", "report", "runs", "models", "datasets", "losses")
FLAGS = ("--multirun", "-m", "--cfg", "--resolve", "--package", "--info", "--config-dir", "--hydra-help", "--help")
HYDRA_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-path", "-cp",
                          "--config-name", "-cn", "--experimental-rerun")  # fmt: skip
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")  # what --info may be followed by
COMPLETION = ("-sc", "--shell-completion")
SHELLS = ("bash", "fish", "zsh")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if torchrun.processes() > 1:
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # each process would warn that all is well
            from kdrun.training import crew

            raise SystemExit(crew.run(lambda: _command(words)))
        raise SystemExit(_command(words))
    except KeyboardInterrupt:  # before anything runs that could be resumed
        raise SystemExit(130) from None


def _command(words: list[str]) -> int:
    if set(COMPLETION) & set(words):
        return _completion(words)
    first = words[0] if words else "help"
    asks_help = first in ("-h", "--help", "help") or "--help" in words or "-h" in words
    words = [word for word in words if word not in ("-h", "--help")] if asks_help else words
    words = words[1:] if first == "help" else words
    if asks_help and (not words or words == ["train"]):
        print(helptext.ALL)
        return 0
    if first in ("--version", "-V", "version"):
        from kdrun import __version__

        print(f"kdrun {__version__}")
        return 0
    verb, rest = _verb(words)
    if asks_help:
        print(helptext.VERBS[verb])
        return 0
    if verb in LISTING:
        return _guarded(lambda: importlib.import_module(f"kdrun.verbs.{verb}").main(rest))
    return _composed(verb, rest)


def _verb(words: list[str]) -> tuple[str, list[str]]:
    for spoken, name in COMPOSED.items():
        if tuple(words[: len(spoken)]) == spoken:
            return name, words[len(spoken) :]
    if words[0] in LISTING:
        return words[0], words[1:]
    from kdrun import checks

    if words[0] == "train":
        asked = shlex.join(["kdrun", *words[:2]])
        raise _refusal(f"{asked}: train what? Type kdrun train teacher or kdrun train baseline")
    known = [*(" ".join(spoken) for spoken in COMPOSED), *LISTING]
    hint = checks.nearest(words[0], known)
    raise _refusal(f"{words[0] or shlex.quote('')}: there is no such verb.{hint} Existing: {', '.join(known)}")


def _refusal(*problems: str) -> SystemExit:
    """Print all that is wrong; the exit to raise."""
    if len(problems) > 1:
        print(f"kdrun: {len(problems)} things are wrong with this command:", file=sys.stderr)
        print("\n".join(f"  - {problem}" for problem in problems), file=sys.stderr)
    else:
        print(f"kdrun: {problems[0]}", file=sys.stderr)
    return SystemExit(2)


def _guarded(run: Callable[[], int | None]) -> int:
    """Run a verb that Hydra does not run, with the same exit codes."""
    try:
        return run() or 0
    except ValueError as error:
        print(f"kdrun: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `kdrun runs | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except KeyboardInterrupt:
        return 130


def _composed(verb: str, rest: list[str]) -> int:
    """Check the command line as a whole, then let Hydra run the verb's task."""
    from kdrun import config, preflight, sweeps

    command = read(verb, rest)
    args, rest, cells, problems = command.flags, command.words, command.checked.cells, command.problems
    os.environ["KDRUN_COMMAND"] = shlex.join([*torchrun.spoken(), *verb.split("_"), *command.typed])
    os.environ["KDRUN_STARTED"] = repr(time.time())  # for the cells too that run in processes of their own
    os.environ["KDRUN_NOTES"] = json.dumps(command.own.notes)
    shown = bool(args.cfg or args.info or args.hydra_help)
    if not shown:
        problems += preflight.unwritable(cells, sweep=args.multirun) if not problems else []
        rest, unnamed = _runs_by_name(verb, rest, cells)
        problems += unnamed
        # What only a loss, a network or the data can say needs torch. It is asked where nothing else is wrong,
        # and where a loss's own number was typed, which may be wrong as well.
        own_numbers = any(word.startswith("loss.") for cell in cells for word in cell.typed)
        if verb not in config.MEASURING and (not problems or own_numbers):
            from kdrun.verbs import rehearsal

            problems += rehearsal.problems(verb, cells, networks=args.multirun and not problems)
        if verb == "export" and not problems:
            from kdrun.verbs import exporting

            problems += exporting.problems(cells)
        if not problems:
            from kdrun.verbs import occupied

            searched = command.checked.searched
            problems += occupied.problems(verb, cells, sweep=args.multirun, searched=searched)
    if problems:
        raise _refusal(*problems)
    if shown:
        return _shown(verb, rest)
    if command.own.said:
        print("\n".join(command.own.said), flush=True)
    swept = None if not args.multirun else [] if command.checked.searched else [cell.typed for cell in cells]
    return sweeps.run(verb, rest, swept, searched=command.checked.searched)


@dataclass(frozen=True)
class Command:
    """A command line as it is understood, before anything but its own words was looked at."""

    flags: argparse.Namespace  # Hydra's
    typed: list[str]  # as typed, flags first
    words: list[str]  # with those that an experiment brings
    own: Brought
    checked: Checked
    problems: list[str]


def read(verb: str, rest: list[str]) -> Command:
    """Read and compose a command line, and gather all that is wrong with its words.

    Raises SystemExit, once that is printed, where Hydra's flags or the name of a run are wrong.
    """
    from kdrun import config, engines, experiments, groups, launcher, preflight
    from kdrun.data import places

    if verb in config.MEASURING:
        rest = _with_run(verb, rest)
    typed = _flags_first(rest)
    args = _flags(verb, typed)
    dirs = groups.user_dirs(args.config_dir)
    groups.register(dirs)
    launcher.register()
    if args.hydra_help:
        return Command(args, typed, typed, experiments.Brought(), preflight.Checked([], []), [])
    shown = bool(args.cfg or args.info)
    own = experiments.brought(verb, args.overrides, shown=shown, here=places.here)
    args.overrides, words = [*args.overrides, *own.words], [*typed, *own.words]
    if experiments.several(own.words) and not args.multirun:
        args.multirun, words = True, ["--multirun", *words]
    checked = preflight.check(verb, args.overrides, sweep=args.multirun, dirs=dirs)
    problems = [*own.problems, *checked.problems]
    scaled = preflight.bent(checked.cells) if not problems else []
    own.said, own.notes = [*own.said, *scaled], [*own.notes, *scaled]
    if not shown and args.multirun:
        problems += torchrun.clashing(verb, checked.cells)
    elif not shown:
        problems += engines.in_vain(verb, args.overrides, problems)
    return Command(args, typed, words, own, checked, problems)


def _shown(verb: str, rest: Sequence[str]) -> int:
    """Let Hydra show its help or the configuration; what it cannot show is bad input, in its own words."""
    from hydra.errors import HydraException

    from kdrun import sweeps

    try:
        return 2 if (code := sweeps.run(verb, rest, None)) == 3 else code
    except HydraException as error:  # of --hydra-help, which knows Hydra's settings alone
        raise _refusal(f"--hydra-help: {' '.join(str(error).splitlines()[:1])} Leave the verb's settings out") from None


def _runs_by_name(verb: str, rest: list[str], cells: Sequence[Cell]) -> tuple[list[str], list[str]]:
    """Read run=NAME and teacher.from=NAME as they are meant before this command makes a run of its own.

    Gives the words with `latest` as the run's name, and what is wrong with the names.
    """
    from kdrun.results.find import find_artifact, find_folder, find_run
    from kdrun.results.sweep import named_run

    problems: list[str] = []
    named: dict[str, str] = {}
    for cfg in (cell.cfg for cell in cells):
        for key, name in _names_of_runs(verb, cfg).items():
            try:
                outputs = Path(cfg.outputs)
                if key != "run":
                    find_artifact(name, "teacher", outputs)
                if verb == "evaluate":
                    named_run(name, outputs)
                if name == "latest":  # of a sweep its best cell is measured
                    find = find_folder if key == "run" else find_run
                    named[f"{key}=latest"] = f"{key}={find(name, outputs).name}"
            except ValueError as error:
                problems.append(str(error) if key == "run" else f"{key}={error}")
    return [named.get(word, word) for word in rest], list(dict.fromkeys(problems))


def _names_of_runs(verb: str, cfg: DictConfig) -> dict[str, str]:
    """Give the settings that name a run, and not a file."""
    from kdrun import checks, config

    if verb in config.MEASURING:
        return {} if cfg.get("run") is None else {"run": str(cfg.run)}  # None: what was typed is refused already
    if verb == "train_baseline":
        return {}
    asked = {"teacher.from": cfg.teacher["from"], **{f"teachers.{n}.from": t["from"] for n, t in cfg.teachers.items()}}
    return {k: str(v) for k, v in asked.items() if v is not None and not checks.file_and_entry(str(v))}


def _flags(verb: str, rest: list[str]) -> argparse.Namespace:
    """Read Hydra's own flags; those that would leave the verb are refused."""
    import argparse

    from hydra._internal.utils import get_args_parser

    from kdrun import checks

    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        args, unknown = parser.parse_known_args(rest)
    except argparse.ArgumentError as error:
        raise _refusal(f"{error}; kdrun {verb.replace('_', ' ')} --help lists what there is") from None
    problems = []
    for word in unknown:
        hint = checks.nearest(word, FLAGS)
        problems.append(f"{word}: there is no such flag.{hint} Existing: {', '.join(FLAGS)}")
    if args.config_name or args.config_path:
        problems.append("--config-name and --config-path belong to the verbs; --config-dir DIR adds choices of yours")
    if args.multirun and (args.cfg or args.info):
        problems.append("-m with --cfg or --info: they show one configuration; leave -m out")
    elif sum(map(bool, (args.run, args.multirun, args.cfg, args.info, args.hydra_help))) > 1:
        problems.append("only one of --run, --multirun, --cfg, --info and --hydra-help can be specified")
    if args.resolve and not args.cfg:
        problems.append("the --resolve flag can only be used in conjunction with --cfg: type --cfg job --resolve")
    if args.resolve and args.cfg == "hydra":
        problems.append("--cfg hydra --resolve: its values name keys outside of it; type --cfg all --resolve")
    if args.package and not args.cfg:
        problems.append(f"--package {args.package}: names the part that --cfg shows; type --cfg job with it")
    if args.experimental_rerun:
        problems.append("--experimental-rerun reads a pickle; a run's command stands in its run.json: type that again")
    if args.config_dir is not None and not Path(args.config_dir).is_dir():
        problems.append(f"--config-dir {args.config_dir}: there is no such folder")
    if problems:
        raise _refusal(*problems)
    return args


def _with_run(verb: str, rest: list[str]) -> list[str]:
    """Read `kdrun evaluate RUN` as run=RUN: the one word that is neither a setting nor a flag."""
    out, takes_value = [], False
    for word in rest:
        plain = not word.startswith("-") and "=" not in word and not takes_value
        if plain:
            word = "run=" + ("'" + word.replace("'", r"\'") + "'" if _needs_quotes(word) else word)
        out.append(word)
        takes_value = word in HYDRA_FLAGS_WITH_VALUE
    if not any(word.startswith("run=") for word in out) and not {"--cfg", "-c", "--info", "--hydra-help"} & set(out):
        raise _refusal(f"kdrun {verb}: which run? Type kdrun {verb} RUN (kdrun runs lists them; or latest)")
    return out


def _flags_first(rest: list[str]) -> list[str]:
    """Put flags, with their values, before the settings: Hydra's parser loses settings that stand on both sides."""
    flags: list[str] = []
    settings: list[str] = []
    takes_value = asks = False
    for word in rest:
        if asks and word in INFO:
            flags[-1] = f"--info={word}"
        else:
            (flags if takes_value or word.startswith("-") else settings).append(word)
        takes_value, asks = word in HYDRA_FLAGS_WITH_VALUE, word in ("--info", "-i")
        if asks:
            flags[-1] = "--info=all"  # alone, it would take the first setting behind it for its value
    return flags + settings


def _needs_quotes(word: str) -> bool:
    """Whether Hydra would read a name otherwise; a fingerprint of digits around an e is a number to it."""
    return any(c in word for c in " ,()[]{}'") or bool(re.fullmatch(r"\d+e\d+", word))


def _completion(words: list[str]) -> int:
    """Answer the shell's completion: verbs and listings are ours, what stands behind a composed verb is Hydra's."""
    from kdrun import groups, launcher, sweeps

    verb = "distill"
    if others := [word for word in words if word.startswith("-") and word not in COMPLETION]:
        raise _refusal(f"--shell-completion with {' '.join(others)}: only one of them can be specified")
    asked = [word for word in words if re.match("(install|uninstall|query)=", word)]
    if len(asked) != 1 or asked[0].partition("=")[2] not in SHELLS:
        raise _refusal(f"--shell-completion expects one of install=, uninstall= and query=, with {', '.join(SHELLS)}")
    if asked[0].startswith("query="):  # install= and uninstall= print a shell function instead
        line = os.environ.get("COMP_LINE", "")
        for spoken, name in COMPOSED.items():
            if behind := re.match(r"\S+\s+" + r"\s+".join(spoken) + r"\s+(.*)", line):
                verb, os.environ["COMP_LINE"] = name, f"kdrun {behind[1]}"
                break
        else:
            print("\n".join(_next_words(line.split()[1:] if line.endswith(" ") else line.split()[1:-1])))
            return 0
    groups.register(groups.user_dirs())
    launcher.register()
    sweeps.hydra_main(verb, [COMPLETION[0], *asked])
    return 0


def _next_words(typed: list[str]) -> list[str]:
    if typed == ["models"]:
        from kdrun import groups

        return groups.options("student", groups.user_dirs())
    following = {(): sorted({spoken[0] for spoken in COMPOSED} | set(LISTING)), ("train",): ["baseline", "teacher"]}
    return following.get(tuple(typed), [])
