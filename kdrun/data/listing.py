"""The files in folders and .zip archives, checked before any image is decoded."""

import functools
import hashlib
import logging
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from kdrun.checks import nearest_beside
from kdrun.data.decoding import KINDS, SUFFIXES, BadImage, Source, Sources

log = logging.getLogger(__name__)
MOST_WAYS = 100
"""How often a folder may be reached through links: a few folders that link to each other make millions of paths."""


def roots(root: Any, key: str) -> list[str]:
    """Return the folders and archives that `root` names: one path, or a list of them that are taken together.

    `key` is the setting, for messages. Raise ValueError if one is neither, or does not exist.
    """
    typed = [root] if isinstance(root, str | os.PathLike) else root
    if (
        not typed
        or not isinstance(typed, list | tuple)
        or not all(p and isinstance(p, str | os.PathLike) for p in typed)
    ):
        raise ValueError(f"{key}={root}: name a folder or .zip archive: {key}=DIR, or '{key}=[train.zip,test.zip]'")
    paths = []
    for text in typed:
        path = Path(text).expanduser()
        if path.is_file():
            try:
                zipfile.ZipFile(path).close()
            except Exception as error:  # a damaged archive raises any kind of error in its reader
                raise ValueError(
                    f"{key}={text}: not a .zip archive, or a truncated one ({error}); test it with `unzip -t`"
                ) from error
        elif path.exists() and not path.is_dir():
            raise ValueError(f"{key}={text}: is neither a regular file nor a folder; name a folder or a .zip archive")
        elif not path.is_dir():
            near = nearest_beside(path, lambda p: p.is_dir() or p.suffix.lower() == ".zip")
            what = (
                f"there is no {path.name} in {path.parent.absolute()}"
                if path.parent.is_dir()
                else f"there is no {path.parent}"
            )
            raise ValueError(f"{key}={text}: {what}.{near} Type {key}=DIR or FILE.zip")
        paths.append(str(path))
    return paths


def members(root: str) -> list[str]:
    """Return the paths inside a folder or archive, sorted, with forward slashes; folders end with a slash.

    Hidden folders are not entered. A link that leads back, directly or through others, to a folder that contains it is
    not followed, with a warning. Raise ValueError if a folder cannot be read, if links lead to one folder in very many
    ways, and if members of an archive would be unpacked outside of it, are links, are encrypted, or appear twice.
    """
    if os.path.isdir(root):
        names = _below(root)
    else:
        with zipfile.ZipFile(root) as archive:
            for info in archive.infolist():
                if reason := _refused(info):
                    raise ValueError(f"{root}: refused, since its member {info.orig_filename!r} {reason}")
            names = [info.filename for info in archive.infolist()]
        if len(set(names)) != len(names):
            raise ValueError(f"{root}: refused, since it contains {_twice(names)!r} twice")
        names += {f"{name.rsplit('/', depth)[0]}/" for name in names for depth in range(1, name.count("/") + 1)}
    return sorted(set(names))


def _below(root: str) -> list[str]:
    """Return the paths below a folder, following links."""
    names: list[str] = []
    around = {root: {_identity(root)}}  # by folder still to be entered: itself and the folders that contain it
    ways: Counter[tuple[int, int]] = Counter()
    leading_back: list[str] = []
    for folder, inner, files in os.walk(root, followlinks=True, onerror=_cannot_be_read):
        outer = around.pop(folder)
        visible = [name for name in inner if not is_hidden(name)]
        inner.clear()
        for name in visible:
            path = os.path.join(folder, name)
            identity = _identity(path)
            ways[identity] += 1
            if ways[identity] > MOST_WAYS:
                raise ValueError(
                    f"{root}: links lead to {os.path.realpath(path)} in more than {MOST_WAYS} ways; remove some"
                )
            if identity in outer:
                leading_back.append(path)
            else:
                inner.append(name)
                around[path] = outer | {identity}
        above = Path(folder).relative_to(root).as_posix()
        above = "" if above == "." else above + "/"
        names += [f"{above}{name}/" for name in inner] + [above + name for name in files]
    if leading_back:
        more = f" (and {len(leading_back) - 1} more)" if len(leading_back) > 1 else ""
        log.warning("%s: links to a folder that contains it, and is not followed%s", leading_back[0], more)
    return names


def entries(folder: str) -> list[Path]:
    """Return the top entries of a folder that are not hidden, sorted. Raise ValueError if it cannot be read."""
    try:
        return sorted(path for path in Path(folder).iterdir() if not is_hidden(path.name))
    except OSError as error:
        _cannot_be_read(error)


def images_in(places: Sequence[str], key: str) -> list[Source]:
    """Return all images below folders and archives, flat or nested; other files are counted in a warning.

    Raise ValueError if there is none.
    """
    images: list[Source] = []
    left_out = LeftOut()
    for root in places:
        for name in members(root):
            if is_image(name) and not is_hidden(name):
                images.append(Source(root, name))
            elif not name.endswith("/"):
                left_out.add(Source(root, name))
    if not images:
        raise ValueError(f"{key}={', '.join(places)}: no image found; needs {KINDS} files")
    left_out.report(f"{key}={', '.join(places)}")
    return images


def is_image(name: str) -> bool:
    """Return whether a member is an image by its name."""
    return name.lower().endswith(SUFFIXES)


def is_hidden(name: str) -> bool:
    """Return whether a member, or a folder that contains it, is hidden or was added to the archive by macOS."""
    return any(step.startswith(".") or step == "__MACOSX" for step in name.split("/"))


class LeftOut:
    """Files that are left out, and why: one line on the terminal, and all of them in kdrun.log."""

    def __init__(self) -> None:
        self._files: list[tuple[Source, str]] = []

    def add(self, source: Source, reason: str = "") -> None:
        """Add a file; its reason is "hidden" if it is hidden, else `reason`, else its suffix."""
        hidden = "hidden" if is_hidden(source.member) else ""
        suffix = Path(source.member).suffix.lower() or "without a suffix"
        self._files.append((source, hidden or reason or suffix))

    def report(self, key: str) -> None:
        """Log the files, with the setting that named their folder."""
        if not self._files:
            return
        reasons = Counter(reason for _, reason in self._files)
        total = len(self._files)
        counted = ", ".join(f"{reasons[reason]} {reason}" for reason in sorted(reasons, key=lambda r: (-reasons[r], r)))
        _warn_once(
            f"{key}: left out {total} file{'s'[: total != 1]}: {counted}",
            "left out:\n" + "\n".join(f"{source}: {reason}" for source, reason in self._files),
        )


@functools.lru_cache(maxsize=2)  # extra images are listed again for every seed
def _warn_once(line: str, whole: str) -> None:
    log.warning(line)
    log.debug(whole)


def listed(names: Sequence[str], most: int = 10) -> str:
    """Return names for a message, only the first if there are many."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def fingerprint(sources: Iterable[Source], *, contents: bool) -> str:
    """Return the sha256 of names and bytes; without `contents`, for large sets, of names, sizes and mtimes."""
    whole = hashlib.sha256()
    archives: dict[str, str] = {}
    opened = Sources()
    for source in sources:
        root, member = source
        whole.update(member.encode(errors="surrogateescape") + b"\0")
        if os.path.isdir(root):
            try:
                whole.update(hashlib.sha256(opened.read(source)).digest() if contents else _times(Path(root, member)))
            except (BadImage, OSError) as error:
                whole.update(str(error).encode(errors="surrogateescape"))
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
        return "would be unpacked outside the archive's folder"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a symbolic link"
    return "is encrypted" if info.flag_bits & 1 else ""


def _cannot_be_read(error: OSError) -> NoReturn:
    raise ValueError(f"{error.filename}: this folder cannot be read ({error.strerror}); make it readable, or move it")


def _identity(folder: str) -> tuple[int, int]:
    """Return the device and inode of a folder, which are the same for every path that leads to it."""
    try:
        status = os.stat(folder)
    except OSError as error:
        _cannot_be_read(error)
    return status.st_dev, status.st_ino


def _twice(names: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
