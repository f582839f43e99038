"""Images as kdrun reads them: files, .zip archives, and the cache of decoded copies."""

import contextlib
import hashlib
import io
import os
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

from kdrun.data.decoding import BadImage, Source, Sources, decoded
from kdrun.data.folder import folder as load_folder
from tests.data.given import folder_arguments, picture, tree
from tests.fuzz import judge, mutators
from tests.fuzz.kinds import Kind, scratch

SUFFIXES = (".png", ".jpeg", ".bmp", ".gif", ".webp", ".tiff")


def _image(suffix: str, **options: Any) -> Kind:
    def read(folder: Path) -> bytes:
        return decoded(Sources(), Source(str(folder), f"x{suffix}"), (8, 8), 3).pixels.tobytes()

    content = io.BytesIO()
    picture(1).save(content, format=suffix[1:], **options)
    return Kind(f"image {suffix}", read, {f"x{suffix}": content.getvalue()}, [f"x{suffix}"], (BadImage,))


def _load(root: Path) -> Any:
    data = load_folder(**folder_arguments(str(root)))
    return data.classes, hashlib.sha256(data.train.images.numpy().tobytes()).hexdigest(), data.digest


def _decoded() -> Kind:
    def read(folder: Path) -> Any:
        with mock.patch.dict(os.environ, KDRUN_CACHE=str(folder / "cache")):
            return _load(folder / "images")

    with scratch() as place:
        tree(place / "images", count=3)
        with contextlib.chdir(place):
            read(place)
        files = judge.taken(place)
    return Kind("cache of images", read, files, [name for name in files if name.startswith("cache/")])


def _archive() -> Kind:
    def read(folder: Path) -> Any:
        with mock.patch.dict(os.environ, KDRUN_CACHE=str(folder / "cache")):
            return _load(folder / "images.zip")

    def mutate(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
        return _renamed(content, rng) if rng.random() < 0.3 else mutators.damaged(content, rng, others)

    with scratch() as place:
        tree(place / "images", count=2)
        content = _zipped(judge.taken(place / "images"))
    return Kind("zip of images", read, {"images.zip": content}, ["images.zip"], (ValueError,), mutate=mutate)


NAMES = ["../out.png", "/tmp/out.png", "train/../../out.png", "C:\\x.png", "train/cat/a\\b.png", "train/cat/\x01.png",
         "train/cat", "train//x.png", "train/<b>/x.png", ".hidden/x.png", "test/cat/x.png", "train/é/x.png", "",
         "train/" + "d/" * 200 + "x.png", "x" * 3000 + ".png", "train/.png", "val/dog/x.png"]  # fmt: skip


def _renamed(content: bytes, rng: random.Random) -> bytes:
    """Return an archive with a member of another name, a link, one that stands there twice, or one compressed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    chosen = rng.choice(list(members))
    entries = [
        (zipfile.ZipInfo(name if name != chosen else rng.choice([*NAMES, name])), d) for name, d in members.items()
    ]
    info, data = rng.choice(entries)
    kind = rng.randrange(6)
    if kind == 0:
        info.external_attr = 0o120777 << 16
    elif kind == 1:
        info.compress_type = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    elif kind == 2:
        entries.append((zipfile.ZipInfo(info.filename), data))
    elif kind == 3:
        entries.append((zipfile.ZipInfo(rng.choice(NAMES)), data))
    made = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(made, "w") as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return made.getvalue()


def _zipped(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return made.getvalue()


def images() -> list[Kind]:
    """Return all of them."""
    return [*map(_image, SUFFIXES), _archive(), _decoded()]
