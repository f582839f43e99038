"""kdrun store: list, show, verify or prune the stored trainings, which every command reuses."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from kdrun import banks, console
from kdrun.artifact import Damaged, leftovers
from kdrun.checks import nearest, typed_folder
from kdrun.command.listings import DEFAULT_OUTPUTS, Words
from kdrun.files import RunFailed
from kdrun.locks import Busy
from kdrun.results import inventory
from kdrun.results.inventory import Entry
from kdrun.results.references import references
from kdrun.results.tables import Table
from kdrun.store import Store


def main(rest: Sequence[str]) -> int:
    """Run one of the four actions."""
    args = _words(rest)
    outputs = typed_folder(args.outputs, "outputs=")
    return ACTIONS[args.action](args, outputs, Store(outputs / "store"))


def _words(rest: Sequence[str]) -> Namespace:
    parser = Words(prog="store", add_help=False)
    parser.add_argument("action", nargs="?")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--outputs", default=DEFAULT_OUTPUTS)
    parser.add_argument("-n", type=int)
    parser.add_argument("--yes", action="store_true")
    args = parser.parse_intermixed_args([f"--{word}" if word.startswith("outputs=") else word for word in rest])
    if args.action not in ACTIONS:
        typed = "store: do what?" if args.action is None else f"store {args.action}: there is no such action."
        raise ValueError(f"{typed}{nearest(args.action or '', ACTIONS)} Type kdrun store {' | '.join(ACTIONS)}")
    if args.n is not None and (args.action != "list" or args.n < 1):
        wrong = "must be at least 1" if args.action == "list" else "works only with kdrun store list"
        raise ValueError(f"store {args.action}: -n {args.n}: {wrong}")
    if args.yes and args.action != "prune":
        raise ValueError(f"store {args.action}: --yes works only with kdrun store prune")
    if args.action == "prune" and args.names:
        raise ValueError(f"store prune: {args.names[0]}: prune takes no fingerprints; it removes all that is unused")
    if args.action == "show" and len(args.names) != 1:
        raise ValueError("store show: type one fingerprint, or its first digits (kdrun store list shows them)")
    return args


def _list(args: Namespace, outputs: Path, store: Store) -> int:
    every = inventory.chosen(inventory.entries(store), args.names)
    if not every:
        print(f"there are no trainings in {store.root} yet; start with kdrun distill")
        return 0
    print(inventory.listed(every[-args.n :] if args.n else every, store).to_text())
    return 0


def _show(args: Namespace, outputs: Path, store: Store) -> int:
    """Print a training's result, its spec, and the runs and networks that use it."""
    every = inventory.entries(store)
    entry = inventory.named(every, args.names[0], store)
    refs = references(outputs)
    used = [["run", name] for name in sorted(refs.runs.get(entry.fingerprint, ()))]
    used += [[e.role, f"{e.fingerprint}, which learned from it"] for e in every
             if entry.fingerprint in (e.result.get("teachers") or ())]  # fmt: skip
    used += [["unreadable", problem] for problem in refs.unreadable]
    tables = [*inventory.described(entry), Table(["used by", ""], used or [["–", "no run, sweep or network"]])]
    print("\n\n".join(table.to_text() for table in tables))
    return 0


def _verify(args: Namespace, outputs: Path, store: Store) -> int:
    """Read every file of the trainings; return 3 if one is damaged or cannot be read."""
    every = inventory.entries(store)
    chosen = [inventory.named(every, name, store) for name in args.names] or every
    rows, whole, bad = [], 0, 0
    for entry in tqdm(chosen, desc="verifying", unit=" trainings", delay=0.5, leave=False, disable=None):
        problems = _problems(entry, store)
        wrong = any(state in ("damaged", "damaged bank", "unreadable") for state, _ in problems)
        bad, whole = bad + wrong, whole + (entry.finished and not wrong)
        rows += [[entry.folder.name, *problem] for problem in problems]
    size = console.size(sum(entry.bytes for entry in chosen))
    title = f"{_folders(chosen)} of {size} in {store.root}: {whole} trainings match their checksums"
    print(Table(["folder", "what", "what to do"], rows, title).to_text())
    return 3 if bad else 0


def _problems(entry: Entry, store: Store) -> list[tuple[str, str]]:
    """Return what is wrong with one folder, and what to do."""
    again = f"type its command again: {entry.result.get('command') or 'the one that trained it'}"
    if entry.state == "set aside":
        return [("set aside as damaged", "inspect it, or remove it with kdrun store prune")]
    if entry.state == "training":
        return []
    if entry.state == "unfinished":
        return [("unfinished", "the command that started it resumes it; or remove it with kdrun store prune")]
    try:
        store.find(entry.fingerprint)
    except Damaged as error:
        if store.holder(entry.fingerprint) is not None:  # it is being retrained
            return []
        return [("damaged", f"{error.reason}: {again}")]
    except RunFailed as error:
        return [("unreadable", str(error))]
    if broken := _broken_banks(entry.folder):
        return [("damaged bank", f"{problem}; the next command that needs it computes it anew") for problem in broken]
    left = [path.relative_to(entry.folder) for path in leftovers(entry.folder)]
    named = ", ".join(map(str, left[:3])) + (" …" if len(left) > 3 else "")
    return [("left by a killed command", f"{named}: kdrun store prune removes it")] if left else []


def _broken_banks(folder: Path) -> list[str]:
    """Return which banks of a teacher's logits are damaged or unreadable, and why."""
    problems = []
    for path in banks.stored(folder):
        try:
            banks.check(path)
        except FileNotFoundError:
            pass
        except (ValueError, OSError) as error:
            problems.append(f"{path.relative_to(folder)}: {error.strerror if isinstance(error, OSError) else error}")
    return problems


def _prune(args: Namespace, outputs: Path, store: Store) -> int:
    """Show unused folders, ask, and remove them. Raise ValueError if use is unknown, or nobody is there to ask."""
    useless, tidied = _useless(outputs, store)
    if not useless and not tidied:
        print(f"nothing to remove in {store.root}: runs, sweeps or networks use everything in it")
        return 0
    rows = [[e.folder.name, e.state, console.size(e.bytes)] for e in useless]
    rows += [
        [e.folder.name, "files left by a killed command", console.size(_bytes(leftovers(e.folder)))] for e in tidied
    ]
    size = console.size(sum(e.bytes for e in useless))
    title = f"{_folders(useless)} of {size} would be removed"
    note = f"runs outside {outputs} (hydra.run.dir) are not seen: what only they use is removed too"
    print(Table(["folder", "state", "size"], rows, title, [note]).to_text())
    if not args.yes:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ValueError("store prune: nothing was removed; type kdrun store prune --yes to remove it")
        if not _agreed():
            print("nothing was removed")
            return 0
    still = {e.folder for e in _useless(outputs, store)[0]}  # a run may have begun before the question was answered
    gone, problems = 0, []
    for entry in tqdm(useless, desc="removing", unit=" folders", delay=0.5, leave=False, disable=None):
        try:
            with store.locked(entry.fingerprint, None):
                if entry.folder in still and inventory.entry(store, entry.folder).result == entry.result:
                    store.remove(entry.folder)
                    gone += entry.bytes
        except Busy:
            problems.append(f"{entry.folder.name} is in use: {store.holder(entry.fingerprint) or 'another process'}")
        except RunFailed as error:
            problems.append(str(error))
    for entry in tidied:
        store.tidy(entry.folder, entry.fingerprint)
    print(f"\n{console.size(gone)} freed")
    for problem in problems:
        print(f"kdrun: kept: {problem}", file=sys.stderr)
    return 3 if problems else 0


def _agreed() -> bool:
    try:
        return input("\nRemove them? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _useless(outputs: Path, store: Store) -> tuple[list[Entry], list[Entry]]:
    """Return the unused folders, and the folders to keep that contain files left by a killed command.

    Raise ValueError if it cannot be determined which folders are used.
    """
    if not (every := inventory.entries(store)):
        return [], []
    refs = references(outputs)
    keep = refs.kept(every)
    if refs.unreadable:
        raise ValueError(
            "store prune: nothing was removed; these cannot be read, so it is unknown which trainings they use: "
            f"{'; '.join(refs.unreadable[:5])}. Repair or remove them, then type the command again"
        )
    if refs.planning:
        raise ValueError(
            f"store prune: nothing was removed, since {refs.planning[0]} is running and has not recorded yet what it "
            "needs; type it again later, or remove that folder if it no longer runs"
        )
    unused = [e for e in every if e.state == "set aside" or (e.fingerprint not in keep and e.state != "unreadable")]
    useless = [e for e in unused if e.state != "training" or _free(e, store)]
    return useless, [e for e in every if e.finished and e.fingerprint in keep and leftovers(e.folder)]


def _free(entry: Entry, store: Store) -> bool:
    """Return whether no process trains in a folder. The lock decides: a process killed elsewhere leaves its name."""
    try:
        with store.locked(entry.fingerprint, None):
            return True
    except (Busy, RunFailed):
        return False


def _folders(some: Sequence[Entry]) -> str:
    return f"{len(some)} folder{'s'[: len(some) != 1]}"


def _bytes(paths: Sequence[Path]) -> int:
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sum(file.lstat().st_size for file in files)


ACTIONS: dict[str, Callable[[Namespace, Path, Store], int]] = {
    "list": _list,
    "show": _show,
    "verify": _verify,
    "prune": _prune,
}
