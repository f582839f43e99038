"""What lies in folders and .zip archives, checked before a single image is decoded."""

import hashlib
import os
import stat
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun.checks import nearest
from kdrun.data.decoding import SUFFIXES, Source

LAYOUT = "train/CLASS/* and test/CLASS/* (and val/CLASS/*, if you have one)"
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Listing:
    """The images of a data set by part, and its classes in alphabetical order."""

    classes: tuple[str, ...]
    sources: dict[str, list[Source]]
    labels: dict[str, list[int]]


def roots(root: Any, key: str) -> list[str]:
    """The folders and archives that `root` names: one path, or a list of them that are taken together.

    `key` is what was typed, for messages. Raises ValueError for what is neither, and for what is not there.
    """
    typed = [root] if isinstance(root, str | os.PathLike) else root
    if (
        not typed
        or not isinstance(typed, list | tuple)
        or not all(p and isinstance(p, str | os.PathLike) for p in typed)
    ):
        raise ValueError(f"{key}={root}: name a folder or .zip archive: {key}=DIR, or '{key}=[train.zip,test.zip]'")
    found = []
    for text in typed:
        path = Path(text).expanduser()
        if path.is_dir():
            found.append(str(path))
        elif path.is_file():
            try:
                zipfile.ZipFile(path).close()
            except zipfile.BadZipFile as error:
                raise ValueError(
                    f"{key}={text}: no .zip archive, or a truncated one ({error}); `unzip -t` tests it"
                ) from error
            found.append(str(path))
        else:
            there = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
            what = f"there is no {path.name} in {path.parent.absolute()}" if there else f"there is no {path.parent}"
            raise ValueError(f"{key}={text}: {what}.{nearest(path.name, there)} Type {key}=DIR or FILE.zip")
    return found


def members(root: str) -> list[str]:
    """The paths inside a folder or archive, sorted, with forward slashes; folders end with one.

    Hidden files and folders are left out.
    Raises ValueError for an archive whose members would lie outside of it, are links, or are encrypted.
    """
    if os.path.isdir(root):
        names = []
        for folder, inner, files in os.walk(root, followlinks=True):
            inner[:] = [name for name in inner if not name.startswith(".")]
            above = Path(folder).relative_to(root).as_posix()
            above = "" if above == "." else above + "/"
            names += [f"{above}{name}/" for name in inner] + [above + name for name in files]
    else:
        with zipfile.ZipFile(root) as archive:
            for info in archive.infolist():
                if reason := _refused(info):
                    raise ValueError(f"{root}: refused, because its member {info.orig_filename!r} {reason}")
            names = [info.filename for info in archive.infolist()]
        if len(set(names)) != len(names):
            raise ValueError(f"{root}: refused, because {_twice(names)!r} stands in it twice")
        names += {f"{name.rsplit('/', depth)[0]}/" for name in names for depth in range(1, name.count("/") + 1)}
    visible = {n for n in names if not any(step.startswith(".") or step == "__MACOSX" for step in n.split("/"))}
    return sorted(visible)


def images_in(places: Sequence[str], key: str) -> list[Source]:
    """All images below folders and archives, flat or nested. Raises ValueError when there is none."""
    found = [Source(root, name) for root in places for name in members(root) if _is_image(name)]
    if not found:
        raise ValueError(f"{key}={', '.join(places)}: no image in it; needs {_kinds()} files")
    return found


def classified(places: Sequence[str], key: str = "dataset.root") -> Listing:
    """The images below train/CLASS, test/CLASS and val/CLASS of folders and archives taken together.

    Raises ValueError, with what exists instead, for missing parts, a single class, empty classes, and
    classes that differ between the parts.
    """
    where = ", ".join(places)
    files: dict[str, dict[str, list[Source]]] = {}
    others: dict[tuple[str, str], int] = {}
    top: set[str] = set()
    for root in places:
        for name in members(root):
            part, _, rest = name.partition("/")
            top.add(part)
            label, _, file = rest.partition("/")
            if part not in PARTS or (not label) or (not name.endswith("/") and not file):
                continue
            inside = files.setdefault(part, {}).setdefault(label, [])  # noted even where it stays empty
            if file and "/" not in file and _is_image(file):
                inside.append(Source(root, name))
            elif file:
                others[part, label] = others.get((part, label), 0) + 1
    files = {part: files[part] for part in PARTS if part in files}
    if missing := [part for part in ("train", "test") if part not in files]:
        there = ", ".join(sorted(top)[:10]) or "nothing"
        raise ValueError(
            f"{key}={where}: no {'/ and no '.join(missing)}/ with a folder per class inside; needs {LAYOUT}, "
            f"found {there}"
        )
    classes = sorted(set().union(*(set(inside) for inside in files.values())))
    if bad := [name for name in classes if not name.isprintable()]:
        raise ValueError(f"{key}={where}: class {bad[0]!r} has unprintable characters in its name; rename its folder")
    for part, folders in files.items():
        if lacking := [name for name in classes if name not in folders]:
            raise ValueError(
                f"{key}={where}: every part needs the same classes, but {part}/ has no {_listed(lacking)}; "
                "add the folders with their images, or remove them from the other parts"
            )
        if empty := [name for name in classes if not folders[name]]:
            other = others.get((part, empty[0]), 0)
            note = f" ({other} other files, though: needs {_kinds()} directly in the folder)" if other else ""
            raise ValueError(
                f"{key}={where}: no image in {_listed([f'{part}/{name}' for name in empty])}{note}; "
                "add some, or remove the class from every part"
            )
    if len(classes) < 2:
        raise ValueError(f"{key}={where}: a single class ({classes[0]}); a classifier needs two folders or more")
    return Listing(
        tuple(classes),
        {part: [source for name in classes for source in inside[name]] for part, inside in files.items()},
        {part: [i for i, name in enumerate(classes) for _ in inside[name]] for part, inside in files.items()},
    )


def fingerprint(sources: Iterable[Source], *, contents: bool) -> str:
    """Sha256 of names and bytes; without `contents` (too many) of names, sizes and times of change."""
    whole = hashlib.sha256()
    archives: dict[str, str] = {}
    for root, member in sources:
        whole.update(member.encode(errors="surrogateescape") + b"\0")
        if os.path.isdir(root):
            path = Path(root, member)
            whole.update(hashlib.sha256(path.read_bytes()).digest() if contents else _times(path))
        elif root not in archives:
            with open(root, "rb") as file:
                archives[root] = hashlib.file_digest(file, "sha256").hexdigest() if contents else ""
            whole.update(archives[root].encode() if contents else _times(Path(root)))
    return whole.hexdigest()


def _times(path: Path) -> bytes:
    status = path.stat()
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}".encode(errors="surrogateescape")


def _refused(info: zipfile.ZipInfo) -> str:
    name = info.orig_filename
    steps = name.replace("\\", "/").split("/")
    if "\0" in name or "\\" in name or name.startswith("/") or ":" in steps[0] or ".." in steps:
        return "would lie outside of the archive's folder"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a symbolic link"
    return "is encrypted" if info.flag_bits & 1 else ""


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _kinds() -> str:
    return "PNG, JPEG or WebP"


def _twice(names: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _listed(names: Sequence[str], most: int = 10) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
