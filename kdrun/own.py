"""The user's own code, named package.module:Name: import it, check that it is of the expected kind, and hash it.

Losses, networks, data sets and trackers are all found this way. Does not import torch.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import psutil

SOURCE = "__kdrun_source__"
"""The attribute of an imported module that holds the sha256 of the file that it was imported from."""


class Kind(NamedTuple):
    """The kind of object that a name must refer to."""

    noun: str
    """The word for one object of this kind."""
    plural: str
    """The word for several of them in a file."""
    what: str
    """A description of what to name, for messages."""
    fits: Callable[[Any], bool]


def is_own(use: object) -> bool:
    """Return whether a name has the form package.module:Name; names of kdrun's own classes have no colon."""
    return isinstance(use, str) and ":" in use


def resolve(use: str, kind: Kind, key: str = "use") -> Any:
    """Import the object that `use` names, from sys.path or the working folder, and return it without calling it.

    `key` is the setting that holds the name, for messages.

    A file that has changed since this process imported it is imported again: a notebook's user may edit files. Raise
    ValueError if the name is malformed, if a module or attribute does not exist, if importing fails, or if the object
    is of another kind.
    """
    module_name, _, path = str(use).partition(":")
    asked = f"{key}={use}"
    if not path or not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        raise ValueError(f"{asked}: write it as package.module:Name")
    if module_name == "__main__":
        raise ValueError(f"{asked}: {_IN_MAIN}")
    module = _imported(asked, module_name)
    value: Any = module
    for part in path.split("."):
        if not hasattr(value, part):
            others = [name for name, member in vars(module).items() if kind.fits(member)]
            near = difflib.get_close_matches(path, others, n=4) or others[:8]
            raise ValueError(f"{asked}: {module_name} has no {path}; its {kind.plural}: {', '.join(near) or 'none'}")
        value = getattr(value, part)
    if not kind.fits(value):
        is_what = "another class" if isinstance(value, type) else f"of type {type(value).__name__}"
        raise ValueError(f"{asked}: is {is_what}, not a {kind.noun}, and was not called; name {kind.what}")
    if getattr(value, "__module__", "") == "__main__":
        raise ValueError(f"{asked}: {_IN_MAIN}")
    return value


_IN_MAIN = (
    "code in a script or notebook cannot be imported by other processes, and changes to it cannot be tracked; "
    "move it into a file such as mine.py, and type mine:Name"
)


def digest(value: Any, asked: str) -> str:
    """Return the sha256 of the file that defines a value. Raise ValueError if it has none, like a built-in.

    `asked` is the setting with the name, for that message.
    """
    return _sha256(_file(value, asked))


def whole_digest(value: Any, asked: str) -> str:
    """Return the sha256 of the file that defines a value together with the user's files that it imports.

    Files of installed packages do not count. For a single file it equals `digest`. Raise ValueError like `digest`.
    """
    digests = [_sha256(_file(value, asked))]
    digests += [_sha256(Path(str(module.__file__))) for module in imports(value)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def imports(value: Any) -> list[ModuleType]:
    """Return the user's modules that the file of a value imports, directly or indirectly, sorted by name."""
    home = inspect.getmodule(value)
    closure = {} if home is None else {module.__name__: module for module in _closure(home)}
    return [module for name, module in sorted(closure.items()) if module is not home]


def words(error: BaseException) -> str:
    """Return the first line of an error in the user's code, with its type unless that is a plain one, and its place."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    plain = line and isinstance(error, RuntimeError | AssertionError | ValueError)
    return (line if plain else f"{type(error).__name__}: {line}".removesuffix(": ")) + _place(error)


def _imported(asked: str, name: str) -> ModuleType:
    """Import a module. Raise ValueError, with the name as it was typed, if it does not exist or its code fails."""
    if os.getcwd() not in sys.path:
        # For good, not only during the import: the user's module may import its neighbours later.
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()  # a file may have been written since the folder was last read
    before = sys.modules.get(name)
    try:
        module = importlib.import_module(name)
        if before is not None and any(map(_stale, _closure(module))):
            for part in _closure(module):
                importlib.reload(part)
            module = sys.modules[name]
    except ModuleNotFoundError as error:
        missing = error.name or name
        where = f"looked in {os.getcwd()} and the installed packages"
        if name == missing or name.startswith(f"{missing}."):
            raise ValueError(f"{asked}: there is no module {missing} ({where})") from None
        raise ValueError(f"{asked}: {name} imports {missing}, which is missing") from error
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{asked}: importing {name} fails with {reason}") from error
    for part in _closure(module):
        setattr(part, SOURCE, _sha256(Path(str(part.__file__))))
    return module


def _stale(module: ModuleType) -> bool:
    """Return whether a module's file has changed, or may have changed, since it was imported."""
    file = Path(str(module.__file__))
    if not file.is_file():
        return False
    if (known := vars(module).get(SOURCE)) is not None:
        return bool(known != _sha256(file))
    began: float = psutil.Process().create_time()
    return file.stat().st_mtime > began  # other code imported it, and it is unknown whether before the change


def _closure(module: ModuleType) -> list[ModuleType]:
    """Return a module of the user's and those that it imports, every module after the ones it imports."""
    ordered: dict[str, ModuleType] = {}
    entered = set()

    def enter(one: ModuleType) -> None:
        if one.__name__ in entered or not _is_users(one):
            return
        entered.add(one.__name__)
        for name in _imported_names(one):
            if (other := sys.modules.get(name)) is not None:
                enter(other)
        ordered[one.__name__] = one

    enter(module)
    return list(ordered.values())


def _imported_names(module: ModuleType) -> Iterator[str]:
    """Yield all names in the import statements of a module's file that may be modules."""
    for written, names in _import_statements(_content(Path(str(module.__file__)))):
        base = written
        if written.startswith("."):
            with contextlib.suppress(ImportError):
                base = importlib.util.resolve_name(written, module.__package__)
        yield base
        yield from (f"{base}.{name}" for name in names)


@functools.lru_cache(maxsize=256)  # asked for every training of a sweep
def _import_statements(content: bytes) -> list[tuple[str, list[str]]]:
    """Return the modules that a file's import statements name, as written, and what is imported from each."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError):
        return []
    statements: list[tuple[str, list[str]]] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            statements += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            statements.append(("." * node.level + (node.module or ""), [alias.name for alias in node.names]))
    return statements


def _is_users(module: ModuleType) -> bool:
    """Return whether a module is the user's own file rather than one of kdrun, Python or an installed package."""
    file = getattr(module, "__file__", None) or ""
    return file.endswith(".py") and not file.startswith(_libraries())


def _libraries() -> tuple[str, ...]:
    """Return the folders of kdrun, of Python's own modules and of the installed packages."""
    packages = [sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")]
    torch = importlib.util.find_spec("torch")
    places = [Path(__file__).parent, *packages, *(torch.submodule_search_locations or () if torch else ())]
    return tuple(f"{place}{os.sep}" for place in places)


def _file(value: Any, asked: str) -> Path:
    try:
        source = inspect.getsourcefile(value)
    except TypeError:  # a built-in
        source = None
    if source is None or not Path(source).is_file():
        raise ValueError(f"{asked}: has no source file that could identify its results; name what a .py file defines")
    return Path(source)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # removed since it was imported
        return b""


def _sha256(file: Path) -> str:
    return hashlib.sha256(_content(file)).hexdigest()


def _place(error: BaseException) -> str:
    """Return the file and line of the user's code that raised the error; "" if only libraries' code did."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.endswith(".py") and not frame.filename.startswith(_libraries()):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""
