"""Which part and which class each image is of, by the folders and archives that it lies in."""

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
"""What the parts are called, in any letter case."""
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
    """The images below train/CLASS, test/CLASS and val/CLASS of folders and archives taken together.

    The parts may have other usual names, in any letter case; everything may lie in one folder, and each part in an
    archive of its own; what lies deeper in the folder of a class is of that class. Whatever of this is so is said,
    and what is left out is counted. With `test_fraction` there must be no test/, since test images are drawn later,
    from "train"; that is all images where the classes lie in no part.
    Raises ValueError, with what exists instead, for missing parts, a single class, empty classes, classes that
    differ between the parts, and what could be meant in two ways.
    """
    where = f"{key}={', '.join(places)}"
    left = LeftOut()
    opened, said = _opened(places, key)
    found = [_place(root, part, key, left, drawing=test_fraction is not None) for root, part in opened]
    files: dict[str, dict[str, list[Source]]] = {}
    others: Counter[tuple[str, str]] = Counter()
    for place in found:
        said += place.read(files, others, left)
    if NO_PART in files and len(files) > 1:
        apart = listed([place.root for place in found if not place.parts and not place.part])
        raise ValueError(f"{where}: {apart} has classes in no part, the rest has parts; needs {LAYOUT}")
    there = sorted({name.partition("/")[0] for place in found for name in place.names})
    _refuse_missing(files, there, where, test_fraction)
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
                f"{where}: every part needs the same classes, but {part}/ has no {listed(lacking)}; "
                "add the folders with their images, or remove them from the other parts"
            )
        if empty := [name for name in classes if not folders[name]]:
            other = others[part, empty[0]]
            note = f" ({other} other files, though: needs {KINDS})" if other else ""
            raise ValueError(
                f"{where}: no image in {listed([name if unsplit else f'{part}/{name}' for name in empty])}{note}; "
                f"add some, or {'move it away' if unsplit else 'remove the class from every part'}"
            )
    if len(classes) < 2:
        raise ValueError(f"{where}: a single class ({classes[0]}); a classifier needs two folders or more")
    if said:
        log.info("%s: %s", key, "; ".join(said))
    left.say(key)
    return Listing(
        tuple(classes),
        {part: [source for name in classes for source in inside[name]] for part, inside in files.items()},
        {part: [i for i, name in enumerate(classes) for _ in inside[name]] for part, inside in files.items()},
    )


def part_archives(folder: str) -> dict[str, list[str]]:
    """The archives in a folder that are a part each, by what stands before it: train.zip under "".

    NAME-train.zip and NAME-test.zip are found under NAME. Without training images there are none.
    """
    found: dict[str, list[str]] = {}
    trained = set()
    for path in entries(folder):
        name, part = _part_in_name(path.stem)
        if part and path.suffix.lower() == ".zip" and path.is_file():
            found.setdefault(name, []).append(str(path))
            trained |= {name} if part == "train" else set()
    return {name: files for name, files in found.items() if name in trained}


def part_folders(folder: str) -> list[str]:
    """The names of the folders at the top that are called as parts are."""
    return sorted(path.name for path in entries(folder) if path.name.lower() in WORDS and path.is_dir())


@dataclass(frozen=True)
class _Place:
    """A folder or archive, and how what lies in it is to be read."""

    root: str
    wrapping: str
    """The folder around everything: "", or ending with a slash."""
    names: list[str]
    """What is not hidden inside of it, without `wrapping`."""
    parts: dict[str, str]
    """The part that each top folder is, by its own name; empty where none is."""
    part: str
    """The part that all of it is; "" where it holds parts, or classes in no part."""

    def read(
        self, files: dict[str, dict[str, list[Source]]], others: Counter[tuple[str, str]], left: LeftOut
    ) -> list[str]:
        """Add the images to `files` by part and class, count other files by the same, and give what to say of it."""
        nested = set()
        for name in self.names:
            first, _, below = name.partition("/")
            part, inner = (self.parts.get(first), below) if self.parts else (self.part, name)
            label, slash, file = inner.partition("/")
            source = Source(self.root, self.wrapping + name)
            if part is not None and label and slash:
                inside = files.setdefault(part, {}).setdefault(label, [])  # noted even where it stays empty
                if is_image(name):
                    inside.append(source)
                    nested |= {source.member.rpartition("/")[0]} if "/" in file else set()
                elif not name.endswith("/"):
                    left.add(source)
                    others[part, label] += 1
                elif is_image(name[:-1]) and file and not self._holds_images(name):
                    inside.append(Source(self.root, source.member[:-1]))  # is found to be no file when it is read
            elif not name.endswith("/"):
                outside = part is None and "/" in name
                left.add(source, (OUTSIDE if outside else NO_CLASS) if is_image(name) else "")
        said = [f"{self.root}: all of it lies in {self.wrapping}"] if self.wrapping else []
        said += [f"{top}/ is taken as {part}/" for top, part in self.parts.items() if top != part]
        said += [f"{self.root} is taken as {self.part}/"] if self.part else []
        if nested:
            folders = f"{len(nested)} folders" if len(nested) > 1 else "a folder"
            said.append(f"images in {folders} below a class are of that class, e.g. {min(nested)}/")
        return said

    def _holds_images(self, folder: str) -> bool:
        return any(name.startswith(folder) and is_image(name) for name in self.names)


def _place(root: str, part: str, key: str, left: LeftOut, *, drawing: bool) -> _Place:
    """Look at what lies in a folder or archive; `part` is what its name promises, where it holds no parts itself.

    Raises ValueError where two readings are possible, and `drawing` test images, or `part`, does not tell which.
    """
    names = []
    for name in members(root):
        if not is_hidden(name):
            names.append(name)
        elif not name.endswith("/"):
            left.add(Source(root, name))
    wrapping = _wrapping(names)
    for name in names:
        if not name.startswith(wrapping) and not name.endswith("/"):
            left.add(Source(root, name))
    names = [name.removeprefix(wrapping) for name in names if name.startswith(wrapping) and name != wrapping]
    images = [name.split("/") for name in names if is_image(name)]
    holding = {steps[0] for steps in images if len(steps) > 1}
    has_parts = any(steps[0].lower() in WORDS and len(steps) > 2 for steps in images)
    tops = sorted({name.partition("/")[0] for name in names if "/" in name})
    parts = {top: WORDS[top.lower()] for top in tops if top.lower() in WORDS} if has_parts else {}
    for one in PARTS:
        if len(same := [f"{top}/" for top, own in parts.items() if own == one and top in holding]) > 1:
            raise ValueError(f"{key}={root}: {' and '.join(same)} would both be {one}/; rename one of them")
    if not {"train", "test"} <= set(parts.values()):
        rest = sorted(holding - set(parts))
        if parts and rest and (drawing or part):
            raise ValueError(
                f"{key}={root}: is {min(parts)}/ a part, or a class beside {listed(rest)}? Needs {LAYOUT}; "
                f"name {key}={os.path.join(root, wrapping, min(parts))} where that is all"
            )
        classes = sorted({steps[1] for steps in images if len(steps) > 2} if parts else holding)
        if classes and all(name.lower() in WORDS for name in classes):
            raise ValueError(
                f"{key}={root}: the classes would be {listed(classes)}, which are names of parts; needs {LAYOUT}"
            )
    return _Place(root, wrapping, names, parts, NO_PART if parts else part)


def _wrapping(names: Sequence[str]) -> str:
    """The folder around all images that is no part and no class: "", or a path that ends with a slash."""
    wrapping = ""
    images = [name for name in names if is_image(name)]
    while True:
        inside = [name.removeprefix(wrapping) for name in images]
        tops = {name.partition("/")[0] for name in inside}
        if len(tops) != 1 or any(name.count("/") < 2 for name in inside) or min(tops).lower() in WORDS:
            return wrapping
        wrapping += f"{tops.pop()}/"


def _opened(places: Sequence[str], key: str) -> tuple[list[tuple[str, str]], list[str]]:
    """The folders and archives, a folder of archives as these, each with the part that its name promises; what to say.

    A single one promises nothing. Raises ValueError where it is not clear which archives are meant.
    """
    opened: list[str] = []
    said = []
    for root in places:
        found = part_archives(root) if os.path.isdir(root) and not part_folders(root) else {}
        archives = sorted(file for files in found.values() for file in files)
        if not archives:
            opened.append(root)
            continue
        promised = [_part_in_name(Path(file).stem)[1] for file in archives]
        names = listed([Path(file).name for file in archives])
        beside = any(is_image(name) and not is_hidden(name) for name in members(root))
        if beside or len(set(promised)) < len(promised):
            raise ValueError(
                f"{key}={root}: which of {names}{', and of the images beside them,' if beside else ''} are meant? "
                f"Type them: '{key}=[{','.join(archives[:2])}]'"
            )
        said.append(f"{root}: {names} are taken together")
        opened += archives
    if len(opened) == 1:
        return [(opened[0], NO_PART)], said
    names_of = [Path(root).name if os.path.isdir(root) else Path(root).stem for root in opened]
    return [(root, _part_in_name(name)[1]) for root, name in zip(opened, names_of, strict=True)], said


def _part_in_name(name: str) -> tuple[str, str]:
    """What the name of a folder or archive says: ("cifar100", "train"), or nothing of a part."""
    found = re.fullmatch(rf"(?:(.*)[-_. ])?({'|'.join(WORDS)})", name, re.IGNORECASE | re.DOTALL)
    return (found[1] or "", WORDS[found[2].lower()]) if found else (name, NO_PART)


def _refuse_missing(
    files: dict[str, dict[str, list[Source]]], there: Sequence[str], where: str, test_fraction: float | None
) -> None:
    """Raise ValueError where a part is missing that is not to be drawn, or one is there that is."""
    if test_fraction is not None and "test" in files:
        raise ValueError(
            f"dataset.test_fraction={test_fraction:g}: {where} has a test/ of its own; leave dataset.test_fraction out"
        )
    missing = [part for part in ("train", "test") if part not in files]
    can_be_drawn = missing == ["test"] or len(files.get(NO_PART, ())) > 1
    if missing and not (can_be_drawn and test_fraction is not None):
        hint = "; or type dataset.test_fraction=0.2, which draws test images from every class" if can_be_drawn else ""
        raise ValueError(
            f"{where}: no {'/ and no '.join(missing)}/ with a folder per class inside; needs {LAYOUT}, "
            f"found {', '.join(there[:10]) or 'nothing'}{hint}"
        )
