"""Words to verb: finds the verb, answers help at once, runs the preflight, then hands over to Hydra or the verb.

Knows no torch. Imports Hydra only for the verbs that compose a configuration.
Exit codes: 0 done; 2 bad configuration or input; 3 a run failed; 75 interrupted and resumable; 130 second Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kdrun import helptext

if TYPE_CHECKING:
    from kdrun.preflight import Checked

COMPOSED = {  # the words of a verb that composes a configuration -> its name in conf/ and verbs/
    ("train", "teacher"): "train_teacher",
    ("train", "baseline"): "train_baseline",
    ("distill",): "distill",
    ("evaluate",): "evaluate",
}
LISTING = ("report", "runs", "models", "datasets", "losses")
HYDRA_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-path", "-cp",
                          "--config-name", "-cn", "--experimental-rerun")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "-sc" in words or "--shell-completion" in words:
        raise SystemExit(_completion(words))
    if not words or words[0] in ("-h", "--help", "help"):
        print(helptext.ALL)
        raise SystemExit(0)
    if words[0] in ("--version", "-V", "version"):
        from kdrun import __version__

        print(f"kdrun {__version__}")
        raise SystemExit(0)
    verb, rest = _verb(words)
    if "--help" in rest or "-h" in rest:
        print(helptext.VERBS[verb])
        raise SystemExit(0)
    if verb in LISTING:
        raise SystemExit(_guarded(lambda: importlib.import_module(f"kdrun.verbs.{verb}").main(rest)))
    raise SystemExit(_composed(verb, rest))


def _verb(words: list[str]) -> tuple[str, list[str]]:
    for spoken, name in COMPOSED.items():
        if tuple(words[: len(spoken)]) == spoken:
            return name, words[len(spoken) :]
    if words[0] in LISTING:
        return words[0], words[1:]
    import difflib

    if words[0] == "train":
        role = words[1] if len(words) > 1 else "nothing"
        _refuse([f"kdrun train {role}: train what? Type kdrun train teacher or kdrun train baseline"])
    known = [" ".join(spoken) for spoken in COMPOSED] + list(LISTING)
    close = difflib.get_close_matches(words[0], known, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    _refuse([f"{words[0]}: there is no such verb.{hint} Existing: {', '.join(known)}"])
    raise AssertionError("unreachable")


def _refuse(problems: Sequence[str]) -> None:
    if len(problems) > 1:
        print(f"kdrun: {len(problems)} things are wrong with this command:", file=sys.stderr)
        print("\n".join(f"  - {problem}" for problem in problems), file=sys.stderr)
    else:
        print(f"kdrun: {problems[0]}", file=sys.stderr)
    raise SystemExit(2)


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
    if verb == "evaluate":
        rest = _with_run(rest)
    os.environ["KDRUN_COMMAND"] = " ".join(["kdrun", *verb.split("_"), *map(_quoted, rest)])
    from hydra._internal.utils import get_args_parser

    from kdrun import preflight

    try:
        args = get_args_parser().parse_args(rest)
    except SystemExit:
        return 2
    dirs = preflight.user_dirs(args.config_dir)
    if args.config_dir and not dirs[-1].is_dir():
        _refuse([f"--config-dir {args.config_dir}: there is no such folder"])
    preflight.register(dirs)
    only_shows = args.cfg or args.info or args.hydra_help
    checked: Checked | list[str] | None = None
    if not args.hydra_help:
        checked = preflight.check(verb, args.overrides, sweep=args.multirun, dirs=dirs)
        if isinstance(checked, list):
            _refuse(checked)
            return 2
        if not only_shows:
            roots = dict.fromkeys(str(cell.outputs) for cell in checked.cells)
            if problems := [p for root in roots if (p := preflight.output_root_problem(root))]:
                _refuse(problems)
            if verb == "distill" and (problems := _wrong_losses(checked)):
                _refuse(problems)
    from kdrun import sweeps

    is_sweep = args.multirun and not only_shows
    return sweeps.run(verb, rest, checked.overrides if is_sweep and checked else None)


def _wrong_losses(checked: Checked) -> list[str]:
    """Let every chosen loss check its numbers, before any folder is made. torch is imported from here on."""
    from omegaconf import OmegaConf

    from kdrun import losses

    problems = []
    for cell in checked.cells:
        terms = {str(k): v for k, v in OmegaConf.to_container(cell.loss, resolve=True).items() if k != "ce"}
        for name, node in terms.items():
            try:
                losses.build({name: {**node, "weight": node["weight"] or 1.0}})
            except ValueError as error:
                problems.append(str(error))
    return list(dict.fromkeys(problems))


def _with_run(rest: list[str]) -> list[str]:
    """Read `kdrun evaluate RUN` as run=RUN: the one word that is neither a setting nor a flag."""
    out, takes_value = [], False
    for word in rest:
        plain = not word.startswith("-") and "=" not in word and not takes_value
        out.append(f"'run={word}'" if plain and _needs_quotes(word) else f"run={word}" if plain else word)
        takes_value = word in HYDRA_FLAGS_WITH_VALUE
    if not any(word.lstrip("'").startswith("run=") for word in out) and not {"--cfg", "-c", "--info"} & set(out):
        _refuse(["kdrun evaluate: which run? Type kdrun evaluate RUN (kdrun runs lists them; latest is the newest)"])
    return out


def _needs_quotes(word: str) -> bool:
    return any(c in word for c in " ,()[]{}")


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)


def _completion(words: list[str]) -> int:
    """Answer the shell's completion: verbs are ours, what stands behind them is Hydra's."""
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()[1:]
    done = typed if line.endswith(" ") else typed[:-1]
    spoken = next((s for s in COMPOSED if tuple(done[: len(s)]) == s), None)
    if not any(w.startswith("query=") for w in words):  # install= and uninstall= print a shell function
        _run_hydra("distill", words)
        return 0
    if spoken is None:
        if not done:
            firsts = sorted({s[0] for s in COMPOSED} | set(LISTING))
            print("\n".join(firsts))
        elif done == ["train"]:
            print("baseline\nteacher")
        return 0
    at = line.split(None, len(spoken))
    rest = line.split(None, len(spoken) + 1)[len(spoken) + 1] if len(at) > len(spoken) and len(typed) > len(spoken) else ""
    if line.endswith(" ") and not rest.endswith(" ") and rest:
        rest += " "
    os.environ["COMP_LINE"] = f"kdrun {rest}"
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    _run_hydra(COMPOSED[spoken], words)
    return 0


def _run_hydra(verb: str, words: list[str]) -> None:
    from kdrun import preflight, sweeps

    preflight.register(preflight.user_dirs())
    sweeps.hydra_main(verb, words)
