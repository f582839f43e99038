"""The part and the class of each image, by the folders and archives that it lies in."""

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrun.data.decoding import KINDS, Source
from kdrun.data.listing import LeftOut, entries, is_hidden, is_image, listed, members

log = logging.getLogger(__name__)
LAYOUT = "train/CLASS/* and test/CLASS/* (and val/CLASS/*, if you have one)"
PARTS = ("train", "val", "test")
WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of the parts, in any letter case."""
NO_PART = ""
NO_CLASS = "without a class"
OUTSIDE = "outside of train/, val/ and test/"


@dataclass(frozen=True)
class Listing:
    """The images of a data set by part, and its classes in alphabetical order."""

    classes: tuple[str, ...]
    sources: dict[str, list[Source]]
    labels: dict[str, list[int]]


def classified(places: Sequence[str], key: str = "dataset.root", *, test_fraction: float | None = None) -> Listing:
    """Return the images below train/CLASS, test/CLASS and val/CLASS of folders and archives taken together.

    The parts may have other usual names, in any letter case. One folder may contain everything, each part may be an
    archive of its own, and images in subfolders of a class are of that class. The log says which of these applies and
    counts the files that are left out. With `test_fraction` there must be no test/, because test images are drawn
    later from "train", or from all images if the classes are in no part.
    Raise ValueError, with what exists instead, if a part is missing, if there is a single class, if a class is empty,
    if classes differ between the parts, and if the layout can be read in two ways.
    """
    where = f"{key}={', '.join(places)}"
    left_out = LeftOut()
    opened, notes = _opened(places, key)
    contents = [_place(root, part, key, left_out, drawing=test_fraction is not None) for root, part in opened]
    files: dict[str, dict[str, list[Source]]] = {}
    others: Counter[tuple[str, str]] = Counter()
    for place in contents:
        notes += place.read(files, others, left_out)
    if NO_PART in files and len(files) > 1:
        unparted = listed([place.root for place in contents if not place.parts and not place.part])
        raise ValueError(f"{where}: {unparted} has classes outside train/ and test/; needs {LAYOUT}")
    tops = sorted({name.partition("/")[0] for place in contents for name in place.names})
    _refuse_missing(files, tops, where, test_fraction)
    unsplit = NO_PART in files
    if unsplit:
        files = {"train": files[NO_PART]}
        others = Counter({("train", label): count for (_, label), count in others.items()})
    files = {part: files[part] for part in PARTS if part in files}
    classes = sorted(set().union(*(set(inside) for inside in files.values())))
    if bad := [name for name in classes if not name.isprintable()]:
        raise ValueError(f"{where}: class {bad[0]!r} has unprintable characters in its name; rename its folder")
    for part, folders in files.items():
        if lacking := [name for name in classes if name not in folders]:
            raise ValueError(
                f"{where}: every split needs the same classes, but {part}/ has no {listed(lacking)}; "
                "add the folders with their images, or remove them from the other splits"
            )
        if empty := [name for name in classes if not folders[name]]:
            other = others[part, empty[0]]
            note = f" ({other} other files; needs {KINDS})" if other else ""
            raise ValueError(
                f"{where}: no image in {listed([name if unsplit else f'{part}/{name}' for name in empty])}{note}; "
                f"add some, or {'move it away' if unsplit else 'remove the class from every split'}"
            )
    if len(classes) < 2:
        raise ValueError(f"{where}: a single class ({classes[0]}); a classifier needs two folders or more")
    if notes:
        log.info("%s: %s", key, "; ".join(notes))
    left_out.report(key)
    return Listing(
        tuple(classes),
        {part: [source for name in classes for source in inside[name]] for part, inside in files.items()},
        {part: [i for i, name in enumerate(classes) for _ in inside[name]] for part, inside in files.items()},
    )


def part_archives(folder: str) -> dict[str, list[str]]:
    """Return the archives in a folder that hold one part each, by the prefix of their names; "" for train.zip.

    NAME-train.zip and NAME-test.zip have the prefix NAME. A prefix without training images is left out.
    """
    archives: dict[str, list[str]] = {}
    trained = set()
    for path in entries(folder):
        name, part = _part_in_name(path.stem)
        if part and path.suffix.lower() == ".zip" and path.is_file():
            archives.setdefault(name, []).append(str(path))
            trained |= {name} if part == "train" else set()
    return {name: files for name, files in archives.items() if name in trained}


def part_folders(folder: str) -> list[str]:
    """Return the names of the top folders that have the name of a part."""
    return sorted(path.name for path in entries(folder) if path.name.lower() in WORDS and path.is_dir())


@dataclass(frozen=True)
class _Place:
    """A folder or archive, and how its content is to be read."""

    root: str
    wrapping: str
    """The folder around everything: "", or ending with a slash."""
    names: list[str]
    """The members that are not hidden, without `wrapping`."""
    parts: dict[str, str]
    """The part of each top folder, by the folder's name; empty if none is a part."""
    part: str
    """The part of everything in it; "" if it holds parts, or classes in no part."""

    def read(
        self, files: dict[str, dict[str, list[Source]]], others: Counter[tuple[str, str]], left_out: LeftOut
    ) -> list[str]:
        """Add images to `files` by part and class, count other files likewise in `others`, and return notes to log."""
        nested = set()
        for name in self.names:
            first, _, below = name.partition("/")
            part, inner = (self.parts.get(first), below) if self.parts else (self.part, name)
            label, slash, file = inner.partition("/")
            source = Source(self.root, self.wrapping + name)
            if part is not None and label and slash:
                inside = files.setdefault(part, {}).setdefault(label, [])  # recorded even if it stays empty
                if is_image(name):
                    inside.append(source)
                    nested |= {source.member.rpartition("/")[0]} if "/" in file else set()
                elif not name.endswith("/"):
                    left_out.add(source)
                    others[part, label] += 1
                elif is_image(name[:-1]) and file and not self._holds_images(name):
                    inside.append(Source(self.root, source.member[:-1]))  # it is a folder, which decoding refuses
            elif not name.endswith("/"):
                outside = part is None and "/" in name
                left_out.add(source, (OUTSIDE if outside else NO_CLASS) if is_image(name) else "")
        notes = [f"{self.root}: everything is in {self.wrapping}"] if self.wrapping else []
        notes += [f"{top}/ is used as {part}/" for top, part in self.parts.items() if top != part]
        notes += [f"{self.root} is used as {self.part}/"] if self.part else []
        if nested:
            folders = f"{len(nested)} folders" if len(nested) > 1 else "a folder"
            notes.append(f"images in {folders} below a class belong to that class, e.g. {min(nested)}/")
        return notes

    def _holds_images(self, folder: str) -> bool:
        return any(name.startswith(folder) and is_image(name) for name in self.names)


def _place(root: str, part: str, key: str, left_out: LeftOut, *, drawing: bool) -> _Place:
    """Return how a folder or archive is to be read; `part` is the part in its name, if it holds no parts itself.

    Raise ValueError if two folders mean one part, if classes are named like parts, and, if test images are drawn
    (`drawing`) or `part` is given, if folders can be read both as parts and as classes.
    """
    names = []
    for name in members(root):
        if not is_hidden(name):
            names.append(name)
        elif not name.endswith("/"):
            left_out.add(Source(root, name))
    wrapping = _wrapping(names)
    for name in names:
        if not name.startswith(wrapping) and not name.endswith("/"):
            left_out.add(Source(root, name))
    names = [name.removeprefix(wrapping) for name in names if name.startswith(wrapping) and name != wrapping]
    images = [name.split("/") for name in names if is_image(name)]
    holding = {steps[0] for steps in images if len(steps) > 1}
    has_parts = any(steps[0].lower() in WORDS and len(steps) > 2 for steps in images)
    tops = sorted({name.partition("/")[0] for name in names if "/" in name})
    parts = {top: WORDS[top.lower()] for top in tops if top.lower() in WORDS} if has_parts else {}
    for known in PARTS:
        if len(same := [f"{top}/" for top, meant in parts.items() if meant == known and top in holding]) > 1:
            raise ValueError(f"{key}={root}: {' and '.join(same)} would both be {known}/; rename one of them")
    if not {"train", "test"} <= set(parts.values()):
        rest = sorted(holding - set(parts))
        if parts and rest and (drawing or part):
            raise ValueError(
                f"{key}={root}: is {min(parts)}/ a split, or a class like {listed(rest)}? Needs {LAYOUT}; "
                f"name {key}={os.path.join(root, wrapping, min(parts))} if that is the whole data set"
            )
        classes = sorted({steps[1] for steps in images if len(steps) > 2} if parts else holding)
        if classes and all(name.lower() in WORDS for name in classes):
            raise ValueError(
                f"{key}={root}: the classes would be {listed(classes)}, which are names of splits; needs {LAYOUT}"
            )
    return _Place(root, wrapping, names, parts, NO_PART if parts else part)


def _wrapping(names: Sequence[str]) -> str:
    """Return the folder around all images that is no part and no class: "", or a path that ends with a slash."""
    wrapping = ""
    images = [name for name in names if is_image(name)]
    while True:
        inside = [name.removeprefix(wrapping) for name in images]
        tops = {name.partition("/")[0] for name in inside}
        if len(tops) != 1 or any(name.count("/") < 2 for name in inside) or min(tops).lower() in WORDS:
            return wrapping
        wrapping += f"{tops.pop()}/"


def _opened(places: Sequence[str], key: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the folders and archives, each with the part in its name, and notes for the log.

    A folder of archives is replaced by its archives. The name of a single folder or archive is not read as a part.
    Raise ValueError if it is not clear which archives are meant.
    """
    opened: list[str] = []
    notes = []
    for root in places:
        by_prefix = part_archives(root) if os.path.isdir(root) and not part_folders(root) else {}
        archives = sorted(file for files in by_prefix.values() for file in files)
        if not archives:
            opened.append(root)
            continue
        parts = [_part_in_name(Path(file).stem)[1] for file in archives]
        names = listed([Path(file).name for file in archives])
        beside = any(is_image(name) and not is_hidden(name) for name in members(root))
        if beside or len(set(parts)) < len(parts):
            raise ValueError(
                f"{key}={root}: which of {names}{', and of the images beside them,' if beside else ''} are meant? "
                f"Type them: '{key}=[{','.join(archives[:2])}]'"
            )
        notes.append(f"{root}: {names} are combined")
        opened += archives
    if len(opened) == 1:
        return [(opened[0], NO_PART)], notes
    names_of = [Path(root).name if os.path.isdir(root) else Path(root).stem for root in opened]
    return [(root, _part_in_name(name)[1]) for root, name in zip(opened, names_of, strict=True)], notes


def _part_in_name(name: str) -> tuple[str, str]:
    """Return prefix and part in the name of a folder or archive, such as ("cifar100", "train"); the part may be ""."""
    match = re.fullmatch(rf"(?:(.*)[-_. ])?({'|'.join(WORDS)})", name, re.IGNORECASE | re.DOTALL)
    return (match[1] or "", WORDS[match[2].lower()]) if match else (name, NO_PART)


def _refuse_missing(
    files: dict[str, dict[str, list[Source]]], tops: Sequence[str], where: str, test_fraction: float | None
) -> None:
    """Raise ValueError if a part is missing and will not be drawn, or if "test" exists but is to be drawn."""
    if test_fraction is not None and "test" in files:
        raise ValueError(
            f"dataset.test_fraction={test_fraction:g}: {where} already has a test/; leave dataset.test_fraction out"
        )
    missing = [part for part in ("train", "test") if part not in files]
    can_be_drawn = missing == ["test"] or len(files.get(NO_PART, ())) > 1
    if missing and not (can_be_drawn and test_fraction is not None):
        hint = "; or type dataset.test_fraction=0.2, which draws test images from every class" if can_be_drawn else ""
        raise ValueError(
            f"{where}: no {'/ and no '.join(missing)}/ with a folder per class inside; needs {LAYOUT}, "
            f"found {', '.join(tops[:10]) or 'nothing'}{hint}"
        )
