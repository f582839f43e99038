"""The command line: find the verb, answer help at once, run the preflight, then hand over to Hydra or the verb.

Imports no torch, and Hydra only for verbs that compose a configuration. The module is long because it has all checks
of a command before Hydra runs, in order.
Exit codes: 0 done; 2 bad configuration or input; 3 a run failed; 75 interrupted and resumable; 130 second Ctrl-C.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdrun import checks, console, signals, streams, torchrun
from kdrun.command import helptext
from kdrun.command.invocation import Invocation
from kdrun.console import refusal

if TYPE_CHECKING:
    import argparse

    from omegaconf import DictConfig

    from kdrun.command.composing import ComposedCell, Loader
    from kdrun.command.experiments import Additions
    from kdrun.command.preflight import Checked

COMPOSED = {  # the words of a verb that composes a configuration -> its name in conf/ and verbs/
    ("train", "teacher"): "train_teacher",
    ("train", "baseline"): "train_baseline",
    ("distill",): "distill",
    ("evaluate",): "evaluate",
    ("export",): "export",
}
LISTING = ("answers", "predict", "report", "runs", "store", "models", "datasets", "losses")
COMPLETION = ("-sc", "--shell-completion")
SHELLS = ("bash", "fish", "zsh")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    with signals.watched(last=argv is None):
        streams.unfailing()
        try:
            if torchrun.processes() > 1:
                os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # avoids needless warnings of each process
                from kdrun.training import processes

                code = processes.run(lambda: _command(words))
            else:
                code = _command(words)
        except Exception as error:
            from kdrun.files import RunFailed

            if signals.received():
                code = signals.INTERRUPTED  # interrupted code raised some other error
            elif isinstance(error, RunFailed):
                console.failure(f"kdrun: {error}")
                code = 3
            else:
                raise
        except KeyboardInterrupt:
            code = signals.INTERRUPTED
        raise SystemExit(code)


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
        from kdrun.version import __version__

        print(f"kdrun {__version__}")
        return 0
    verb, rest = _verb(words)
    if asks_help:
        print(helptext.VERBS[verb])
        return 0
    if verb in LISTING:
        return _guarded(lambda: _module(verb).main(rest))
    return composed(verb, rest)


def _verb(words: list[str]) -> tuple[str, list[str]]:
    for phrase, name in COMPOSED.items():
        if tuple(words[: len(phrase)]) == phrase:
            return name, words[len(phrase) :]
    if words[0] in LISTING:
        return words[0], words[1:]
    if words[0] == "train":
        command = shlex.join(["kdrun", *words[:2]])
        raise refusal(f"{command}: train what? Type kdrun train teacher or kdrun train baseline")
    known = [*(" ".join(phrase) for phrase in COMPOSED), *LISTING]
    hint = checks.nearest(words[0], [*known, "train"])
    raise refusal(f"{words[0] or shlex.quote('')}: there is no such verb.{hint} Available: {', '.join(known)}")


def _module(verb: str) -> Any:
    with console.busy("starting"):  # some import torch
        return importlib.import_module(f"kdrun.verbs.{verb}")


def _guarded(run: Callable[[], int | None]) -> int:
    """Run a verb that Hydra does not run, with the same exit codes."""
    from kdrun.files import RunFailed

    try:
        return run() or 0
    except (ValueError, RunFailed) as error:
        console.failure(f"kdrun: {error}")
        return 3 if isinstance(error, RunFailed) else 2


def composed(verb: str, rest: list[str]) -> int:
    """Check the command line as a whole, then let Hydra run the verb's task."""
    from kdrun.command import flags
    from kdrun.sweeps import run as sweeps

    with _few_full_collections():
        command, rest, invocation = _checked(verb, rest)
    args, cells = command.flags, command.checked.cells
    if _only_shows(args):
        return _shown(invocation, rest)
    if command.experiment.lines and not cells[0].cfg.get("quiet"):
        print("\n".join(command.experiment.lines), flush=True)
    swept = None if not args.multirun else [] if command.checked.searched else [cell.typed for cell in cells]
    overrides = flags.parsed(verb, rest).overrides
    return sweeps.run(invocation, overrides, swept, searched=command.checked.searched, loader=command.loader)


def _only_shows(args: argparse.Namespace) -> bool:
    """Return whether Hydra's flags ask for its help or the configuration, and nothing is run."""
    return bool(args.cfg or args.info or args.hydra_help)


def _checked(verb: str, rest: list[str]) -> tuple[CommandLine, list[str], Invocation]:
    """Read and check a command line; return it, its words with runs by their names, and how it was typed.

    Raise SystemExit with everything that is wrong.
    """
    from kdrun import config
    from kdrun.command import roles, writable

    with console.busy("reading the command"):
        command = read(verb, rest)
    args, rest, cells, problems = command.flags, command.words, command.checked.cells, command.problems
    text = shlex.join([*torchrun.spoken(), *verb.split("_"), *command.typed])
    invocation = Invocation(verb, text, tuple(command.experiment.notes))
    if not _only_shows(args):
        unwritable = writable.problems(cells, sweep=args.multirun) if not problems else []
        rest, unnamed = _runs_by_name(verb, rest, cells) if not unwritable else (rest, [])
        problems += [one for one in unwritable + unnamed if one not in problems]
        # These checks import torch, which takes seconds: after a problem, run only those that may find further ones.
        trains = verb not in config.MEASURING
        numbers = any(word.startswith("loss.") for cell in cells for word in cell.typed)
        own = trains and any(roles.of_ones_own(cell.cfg) for cell in cells)
        if trains and (not problems or numbers or own):
            with console.busy("checking losses and networks"):
                from kdrun.plan import dry_run

                losses = numbers or (verb == "distill" and not problems)
                if own and (problems or not args.multirun):
                    problems += dry_run.absent(verb, cells, layout=bool(problems))
                problems += dry_run.problems(verb, cells, losses=losses, networks=args.multirun and not problems)
        if verb == "export" and not problems:
            with console.busy("looking where to write"):
                from kdrun.export import target

                problems += target.problems(cells)
        if not problems:
            from kdrun.plan import occupied

            problems += occupied.problems(invocation, cells, sweep=args.multirun, searched=command.checked.searched)
    if problems:
        raise refusal(*problems)
    return command, rest, invocation


@contextlib.contextmanager
def _few_full_collections() -> Iterator[None]:
    """Let Python search all objects for garbage a hundred times less often: importing and composing leave hardly any.

    These searches take an eighth of a finished command's time.
    """
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, 100 * old)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)


@dataclass(frozen=True)
class CommandLine:
    """A command line that was read and composed; folders are not checked yet."""

    flags: argparse.Namespace  # Hydra's flags
    typed: list[str]  # as typed, flags first
    words: list[str]  # `typed` and the words that an experiment adds
    experiment: Additions
    checked: Checked
    problems: list[str]
    loader: Loader  # composes all configurations of the command


def read(verb: str, rest: list[str]) -> CommandLine:
    """Read and compose a command line, and gather all that is wrong with its words.

    Raise SystemExit, with a message, if Hydra's flags or the name of a run are wrong.
    """
    from kdrun import config
    from kdrun.command import composing, experiments, flags, groups, plugins, preflight, swept
    from kdrun.data import places
    from kdrun.sweeps import launcher

    if verb in config.MEASURING:
        rest = flags.with_run(verb, rest)
    typed = flags.flags_first(rest)
    args = flags.parsed(verb, typed)
    dirs = groups.user_dirs(args.config_dir)
    groups.register(dirs)
    launcher.register()
    loader = composing.Loader()
    if args.hydra_help:
        return CommandLine(args, typed, typed, experiments.Additions(), preflight.Checked([], []), [], loader)
    shown = bool(args.cfg or args.info)
    experiment = experiments.additions(verb, args.overrides, shown=shown, here=places.here, loader=loader)
    args.overrides, words = [*args.overrides, *experiment.words], [*typed, *experiment.words]
    if experiments.several(experiment.words) and not args.multirun:
        args.multirun, words = True, ["--multirun", *words]
    checked = preflight.check(verb, args.overrides, sweep=args.multirun, dirs=dirs, loader=loader)
    problems = [*experiment.problems, *checked.problems]
    scaled = preflight.scaled_defaults(checked.cells) if not problems else []
    again = swept.typed_again(args.overrides) if not args.multirun else []
    experiment.lines = [*experiment.lines, *checked.ignored, *again, *scaled]
    experiment.notes = [*experiment.notes, *scaled]
    if not shown:
        problems += plugins.other_folder(args.overrides, sweep=args.multirun)
        if args.multirun:
            problems += preflight.without_torchrun(verb, checked.cells)
        else:
            problems += plugins.sweep_only(verb, args.overrides, problems)
    return CommandLine(args, typed, words, experiment, checked, problems, loader)


def _shown(invocation: Invocation, rest: Sequence[str]) -> int:
    """Let Hydra print its help or the configuration; return 2, for bad input, if it cannot."""
    from hydra.errors import HydraException

    from kdrun.sweeps import run as sweeps

    try:
        return 2 if (code := sweeps.run(invocation, rest, None)) == 3 else code
    except HydraException as error:  # raised by --hydra-help, which knows only Hydra's own settings
        raise refusal(f"--hydra-help: {' '.join(str(error).splitlines()[:1])} Leave the verb's settings out") from None


def _runs_by_name(verb: str, rest: list[str], cells: Sequence[ComposedCell]) -> tuple[list[str], list[str]]:
    """Resolve run=NAME and teacher.from=NAME before this command's own run becomes the latest.

    Return the words with `latest` replaced by the run's name, and what is wrong with the names.
    """
    from kdrun.results.find import find_artifact, find_folder, find_run
    from kdrun.results.sweep.sweep import named_run

    problems: list[str] = []
    named: dict[str, str] = {}
    for cfg in (cell.cfg for cell in cells):
        for key, name in _names_of_runs(verb, cfg).items():
            try:
                outputs = checks.typed_folder(str(cfg.outputs), "outputs=")
                if key != "run":
                    find_artifact(name, "teacher", outputs)
                if verb == "evaluate":
                    named_run(name, outputs)
                if name == "latest":  # evaluate takes the best cell of a sweep
                    find = find_folder if key == "run" else find_run
                    named[f"{key}=latest"] = f"{key}={find(name, outputs).name}"
            except ValueError as error:
                problems.append(str(error) if key == "run" else f"{key}={error}")
    return [named.get(word, word) for word in rest], list(dict.fromkeys(problems))


def _names_of_runs(verb: str, cfg: DictConfig) -> dict[str, str]:
    """Return the settings that name a run, not a file."""
    from kdrun import config

    if verb in config.MEASURING:
        return {} if cfg.get("run") is None else {"run": str(cfg.run)}  # None: the typed value was refused before
    if verb == "train_baseline":
        return {}
    sources = {"teacher.from": cfg.teacher["from"]} | {f"teachers.{n}.from": t["from"] for n, t in cfg.teachers.items()}
    return {k: str(v) for k, v in sources.items() if v is not None and not checks.file_and_entry(str(v))}


def _completion(words: list[str]) -> int:
    """Run the shell's completion: kdrun completes verbs and their actions, Hydra the words after a composed verb."""
    from kdrun.command import groups
    from kdrun.sweeps import launcher
    from kdrun.sweeps import run as sweeps

    verb = "distill"
    if others := [word for word in words if word.startswith("-") and word not in COMPLETION]:
        raise refusal(f"--shell-completion with {' '.join(others)}: only one of them can be specified")
    actions = [word for word in words if re.match("(install|uninstall|query)=", word)]
    if len(actions) != 1 or actions[0].partition("=")[2] not in SHELLS:
        raise refusal(f"--shell-completion expects one of install=, uninstall= and query=, with {', '.join(SHELLS)}")
    if actions[0].startswith("query="):  # install= and uninstall= print a shell function instead
        line = os.environ.get("COMP_LINE", "")
        for phrase, name in COMPOSED.items():
            if rest := re.match(r"\S+\s+" + r"\s+".join(phrase) + r"\s+(.*)", line):
                verb, os.environ["COMP_LINE"] = name, f"kdrun {rest[1]}"
                break
        else:
            print("\n".join(_next_words(line.split()[1:] if line.endswith(" ") else line.split()[1:-1])))
            return 0
    groups.register(groups.user_dirs())
    launcher.register()
    sweeps.hydra_main(Invocation(verb), [COMPLETION[0], *actions])
    return 0


def _next_words(typed: list[str]) -> list[str]:
    if typed == ["models"]:
        from kdrun.command import groups

        return groups.options("student", groups.user_dirs())
    following = {(): sorted({phrase[0] for phrase in COMPOSED} | set(LISTING)), ("train",): ["baseline", "teacher"],
                 ("store",): ["list", "prune", "show", "verify"]}  # fmt: skip
    return following.get(tuple(typed), [])
