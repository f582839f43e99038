"""One pass over image files: pixels, digests, statistics and corrupt images, cached on disk for the next start."""

import contextlib
import hashlib
import json
import logging
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kdrun.console import bars_off, busy
from kdrun.data import listing, places, repeated
from kdrun.data.decoders import Decoders
from kdrun.data.decoding import DECODER, BadImage, Pixels, Source, Sources, decoded
from kdrun.data.sets import FileSet, ImageSet, sealed

log = logging.getLogger(__name__)
CACHE_VERSION = 2
"""Increase it if a pass over the images stores other tensors; if pixels change, increase DECODER instead."""
CHECKSUM = "crc32"
"""The key of the checksum in a cache file's metadata."""
MOST_NAMED = 10


@dataclass(frozen=True)
class Decoding:
    """How images become pixels."""

    image_size: tuple[int, int]
    """Height and width."""
    channels: int | None
    """1, 3, or None: 1 if no image has colour, else 3."""
    fixed: bool
    """Whether images are resized; otherwise an image of another size is an error."""
    skip: bool
    """Whether corrupt images are left out; otherwise they are an error."""


class Survey(NamedTuple):
    """The result of one pass over all images."""

    parts: Any  # dict[str, ImageSet] or dict[str, FileSet]
    digests: dict[str, str]
    histogram: Tensor
    """(C, 256) counts of the pixel values of "train"."""
    sources: dict[str, list[Source]]
    """The sources of each part's images, without corrupt ones."""
    marks: dict[str, list[bytes]]
    """A hash of the pixels of each image."""


def read(sources: dict[str, list[Source]], labels: dict[str, Tensor], how: Decoding, *, resident: bool) -> Survey:
    """Decode every image once, or read the cache of an earlier pass.

    Return the sound images as `ImageSet`s, or as `FileSet`s if not `resident`.
    Raise ValueError, with up to ten of them, if images are corrupt (unless `how.skip`), and if two differ in size.
    """
    everything = [source for part in sources.values() for source in part]
    setting = json.dumps(
        [how.image_size, how.channels, how.fixed, how.skip, resident, CACHE_VERSION, DECODER, PIL.__version__]
    )
    with busy(f"hashing {len(everything):,} images"):
        content = listing.fingerprint(everything, contents=resident)
    shape = json.dumps({part: [len(s), labels[part].tolist()] for part, s in sources.items()})
    name = hashlib.sha256(f"{setting} {shape} {content}".encode()).hexdigest()[:32]
    file = places.cache_root() / f"{name}.safetensors"
    with busy("reading the decoded copy"):
        tensors = _cached(file)
    if tensors is None:
        tensors = _decode(sources, labels, how, resident)
        _keep(file, tensors)
    if bad := len(everything) - sum(len(tensors[f"{part}.kept"]) for part in sources):
        log.warning(
            "dataset.on_bad_image=skip: %d of %d images cannot be decoded and are left out", bad, len(everything)
        )
    sound = {part: [inside[i] for i in tensors[f"{part}.kept"].tolist()] for part, inside in sources.items()}
    parts: dict[str, Any] = {}
    decoders = Decoders()
    for part, rows in sound.items():
        chosen = labels[part][tensors[f"{part}.kept"]]
        if resident:
            parts[part] = ImageSet(tensors[f"{part}.pixels"].permute(0, 3, 1, 2), chosen)
        else:
            parts[part] = FileSet(tuple(rows), chosen, how.image_size, len(tensors["histogram"]), decoders)
    digests = {part: bytes(tensors[f"{part}.digest"].tolist()).hex() for part in sources}
    marks = {part: [row.tobytes() for row in tensors[f"{part}.marks"].numpy()] for part in sources}
    return Survey(parts, digests, tensors["histogram"], sound, marks)


def _decode(
    sources: dict[str, list[Source]], labels: dict[str, Tensor], how: Decoding, resident: bool
) -> dict[str, Tensor]:
    """Decode all parts, and return the digest and the sound images of each, with their pixels if `resident`."""
    height, width = how.image_size
    depth = how.channels or 3
    counts = np.zeros((depth, 256), dtype=np.int64)
    pixels: dict[str, Any] = {}
    hashes: dict[str, Any] = {}
    kept: dict[str, list[int]] = {}
    marks: dict[str, bytearray] = {}
    bad: list[str] = []
    colour = False
    first: Source | None = None
    total = sum(map(len, sources.values()))
    with tqdm(total=total, desc="decoding images", unit="image", delay=0.5, disable=bars_off(), leave=False) as bar:
        for part, inside in sources.items():
            rows = np.empty((len(inside) if resident else 0, height, width, depth), dtype=np.uint8)
            content = hashlib.sha256()
            sound: list[int] = []
            marks[part] = bytearray()
            for index, result in enumerate(_in_threads(inside, how, depth)):
                bar.update()
                if isinstance(result, str):
                    bad.append(f"{inside[index]}: {result}")
                    continue
                first = first or inside[index]
                if result.pixels.shape[:2] != how.image_size:
                    raise ValueError(_differ(first, inside[index], result, how))
                colour = colour or not result.grey
                if resident:
                    rows[len(sound)] = result.pixels
                if part == "train":
                    for channel in range(depth):
                        counts[channel] += np.bincount(result.pixels[..., channel].ravel(), minlength=256)
                content.update(result.pixels.data)
                marks[part] += repeated.mark(result.pixels.data)
                sound.append(index)
            pixels[part], hashes[part], kept[part] = rows[: len(sound)], content, sound
    if bad and not how.skip:
        raise ValueError(
            f"{len(bad)} of {total} images cannot be decoded: {'; '.join(bad[:MOST_NAMED])}"
            + (f"; and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else "")
            + ". Replace them, or leave them out for all networks with dataset.on_bad_image=skip"
        )
    for line in bad[:MOST_NAMED]:
        log.warning("left out %s", line)
    channels = how.channels or (3 if colour else 1)
    tensors = {"histogram": torch.from_numpy(counts[:channels].copy())}
    for part in sources:
        indices = torch.tensor(kept[part], dtype=torch.int64)
        tensors[f"{part}.kept"] = indices
        digest = sealed(hashes[part], labels[part][indices], channels, how.image_size)
        tensors[f"{part}.digest"] = torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8)
        tensors[f"{part}.marks"] = torch.from_numpy(
            np.frombuffer(marks[part], np.uint8).reshape(-1, repeated.MARK_BYTES).copy()
        )
        if resident:
            tensors[f"{part}.pixels"] = torch.from_numpy(pixels[part])[..., :channels].contiguous()
    return tensors


def _in_threads(sources: Sequence[Source], how: Decoding, depth: int) -> Iterator[Pixels | str]:
    """Yield the decoded images in order, decoded on all cores, or the reason if one cannot be decoded."""
    opened = Sources()

    def one(source: Source) -> Pixels | str:
        try:
            return decoded(opened, source, how.image_size if how.fixed else None, depth)
        except BadImage as error:
            return str(error)

    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such an image is refused
        warnings.filterwarnings("ignore", message=".*EXIF", category=UserWarning)  # a damaged tag is ignored
        for start in range(0, len(sources), 1024):
            yield from pool.map(one, sources[start : start + 1024])


def first_size(sources: Sequence[Source]) -> tuple[int, int]:
    """Return height and width of the first image that can be decoded. Raise ValueError if there is none."""
    opened = Sources()
    for source in sources:
        with contextlib.suppress(BadImage):
            height, width, _ = decoded(opened, source, None, 3).pixels.shape
            return height, width
    raise ValueError(f"none of {len(sources)} images can be decoded, e.g. {sources[0]}")


def _differ(first: Source, source: Source, other: Pixels, how: Decoding) -> str:
    height, width = how.image_size
    return (
        f"images differ in size: {first} is {width}×{height}, {source} is "
        f"{other.pixels.shape[1]}×{other.pixels.shape[0]}; type dataset.size={min(height, width)} to resize "
        "all, or dataset.size=[HEIGHT,WIDTH]"
    )


def _cached(file: Path) -> dict[str, Tensor] | None:
    """Return the cache of an earlier pass; None if there is none, or if it is unreadable or damaged.

    The checksum is computed once, of the tensors in memory after reading: such a file is never changed later, only
    replaced as a whole.
    """
    if not file.is_file():
        return None
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(file)
        with safetensors.safe_open(file, framework="pt") as opened:
            recorded = (opened.metadata() or {}).get(CHECKSUM)
    except OSError as error:
        log.warning("%s cannot be read (%s); decoding again", file, error.strerror or error)
        return None
    except safetensors.SafetensorError as error:
        log.warning("%s is damaged (%s); decoding again", file, error)
        return None
    if recorded != _checksum(tensors):
        reason = (
            "was written by a version without checksums" if recorded is None else "is damaged (its checksum differs)"
        )
        log.warning("%s %s; decoding again", file, reason)
        return None
    return tensors


def _checksum(tensors: dict[str, Tensor]) -> str:
    """Return the CRC-32 of the names, types, shapes and contents of tensors: it finds damage, faster than the disk."""
    total = 0
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def _keep(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write the result of a pass to disk, whole or not at all; if that fails, warn: the next start decodes again."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(tensors, partial, metadata={CHECKSUM: _checksum(tensors)})
        os.replace(partial, file)
    except (OSError, safetensors.SafetensorError) as error:
        log.warning("cannot keep a decoded copy in %s (%s); KDRUN_CACHE=DIR chooses another folder", file.parent, error)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
