"""The house has floors, and imports go down only."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import kdrun

PACKAGE = Path(kdrun.__file__).parent
FLOORS = [
    {"api", "cli", "__init__", "__main__"},
    {"sweeps"},
    {"verbs"},
    {"lifecycle"},
    {"plan"},
    {"training", "results", "export", "tracking"},
    {"measuring", "evaluation"},
    {"losses", "models", "data"},
    {"augment"},
    {"command"},
    {
        "artifact",
        "banks",
        "caller",
        "checks",
        "config",
        "console",
        "faults",
        "files",
        "locks",
        "memory",
        "own",
        "process",
        "randomness",
        "records",
        "sealed",
        "signals",
        "spec",
        "store",
        "streams",
        "torchrun",
        "unsealed",
        "version",
    },
]
ALONE = ("losses", "models", "augment")  # one paper, one family per file: siblings never import each other
SHARED = {
    "losses": {"base", "layers", "targets", "__init__"},
    "augment": {"base", "operations", "pipeline", "rectangles", "__init__"},
    "models": {"base", "builder", "weight_files", "weights", "__init__"},
}


def test_every_module_stands_on_a_floor():
    known = set().union(*FLOORS)
    assert {
        p.stem if p.is_file() else p.name for p in PACKAGE.iterdir() if p.name not in ("__pycache__", "py.typed")
    } <= known


def test_imports_go_down_only():
    wrong = []
    for path, imported in _imports():
        here = _floor(_room(path))
        wrong += [f"{path} imports {name}" for name in imported if _floor([*name.split("."), "__init__"][1]) < here]
    assert not wrong


def test_losses_and_model_families_do_not_import_their_siblings():
    wrong = []
    for path, imported in _imports():
        room = _room(path)
        if room not in ALONE or path.stem in SHARED[room]:
            continue
        for name in imported:
            parts = name.split(".")
            if parts[1] == room and len(parts) > 2 and parts[2] not in SHARED[room]:
                wrong.append(f"{path} imports {name}")
    assert not wrong


def test_the_command_line_starts_without_torch():
    code = (
        "import sys; import kdrun, kdrun.cli, kdrun.command.preflight, kdrun.spec, kdrun.store, kdrun.sweeps.run, "
        "kdrun.results.collect, kdrun.results.comparison.comparison, kdrun.results.sweep.sweep; "
        "assert not {'torch', 'torchvision'} & set(sys.modules), 'torch came along'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_files_import_each_other_in_a_circle():
    graph = {_module(path): set(imported) - {_module(path)} for path, imported in _imports()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_benchmarks_import_what_exists():
    missing = []
    for path in sorted((PACKAGE.parent / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "kdrun":
                try:
                    exec(f"from {node.module} import {', '.join(alias.name for alias in node.names)}", {})
                except ImportError as error:
                    missing.append(f"{path.name}: {error}")
    assert not missing


def _room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else path.stem


def _floor(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def _imports():
    """Yield every file of the package with the modules of kdrun that it imports, late and for types alone too."""
    known = {_module(path) for path in PACKAGE.rglob("*.py")}
    for path in sorted(PACKAGE.rglob("*.py")):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {name if name in known else node.module for name in whole}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        yield path, sorted(names & known)


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
