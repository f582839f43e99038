"""Downloads that leave a whole, checked file or none. Does not import torch."""

import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from tqdm import tqdm

from kdrun.console import bars_off

log = logging.getLogger(__name__)
ATTEMPTS = 2
STALLED_SECONDS = 15.0
CHUNK = 1 << 18


class File(NamedTuple):
    """A file that is published."""

    name: str
    md5: str


class NotHere(ValueError):
    """A data set is not on this machine and could not be downloaded."""


def fetch(
    files: Sequence[File], urls: Sequence[str], folder: Path, dataset: str, *, stalled_seconds: float = STALLED_SECONDS
) -> None:
    """Download `files` into `folder` from one of `urls` (folders, with a final slash), unless they are there.

    One process downloads and others wait. A file of wrong content is never left under its name.
    Raise NotHere, with the files to put into the folder, if the network or the folder does not allow a download.
    """
    if in_the_way := next((place for place in (folder, *folder.parents) if place.is_file()), None):
        raise NotHere(f"{dataset}: {in_the_way} is a file; name the set's folder with dataset.root=DIR or KDRUN_DATA")
    for number, file in enumerate(files):
        try:
            problem = _fetch_one(file, urls, folder, stalled_seconds)
        except OSError as error:
            problem = str(error)
        if problem:
            missing = ", ".join(f"{rest.name} (md5 {rest.md5})" for rest in files[number:])
            raise NotHere(
                f"{dataset}: {file.name} is missing and no download worked ({problem}). "
                f"Put {missing} into {folder} by hand, from {urls[0]}; "
                "or name the folder that has the set with dataset.root=DIR or KDRUN_DATA"
            )


def _fetch_one(file: File, urls: Sequence[str], folder: Path, stalled_seconds: float) -> str:
    """Download one file unless it is there, and return the last error, or ""."""
    path = folder / file.name
    partial = folder / f"{file.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    problem = ""
    with FileLock(folder / f".{file.name}.lock"):
        if path.is_file() and _md5(path) == file.md5:
            return ""
        for url in list(urls) * ATTEMPTS:
            try:
                _download(url + file.name, partial, file, stalled_seconds)
                os.replace(partial, path)
                return ""
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                problem = f"{url + file.name}: {error}"
            except ValueError as error:
                problem = f"{url + file.name} {error}"
            finally:
                partial.unlink(missing_ok=True)
    return problem


def _download(url: str, partial: Path, file: File, stalled_seconds: float) -> None:
    log.info("%s is not in %s: downloading %s", file.name, partial.parent, url)
    checksum = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=stalled_seconds) as answer, open(partial, "wb") as out:
        size = int(answer.headers.get("Content-Length") or 0)
        with tqdm(
            total=size or None, desc=file.name, unit="B", unit_scale=True, delay=0.5, disable=bars_off(), leave=False
        ) as bar:
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                checksum.update(chunk)
                bar.update(len(chunk))
        out.flush()
        os.fsync(out.fileno())
    if checksum.hexdigest() != file.md5:
        raise ValueError(f"has md5 {checksum.hexdigest()} instead of {file.md5}: truncated, or another file")


def _md5(path: Path) -> str:
    with open(path, "rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
