"""From image files, in folders or in archives, to pixels."""

import io
import os
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LARGEST_FILE = 512 * 2**20
"""Bytes of one image file: an archive may claim any size for a member."""


class BadImage(ValueError):
    """A file that is not the image that its name promises; the message is the reason alone."""


class Source(NamedTuple):
    """Where an image lies: a folder or .zip archive, and its path inside, with forward slashes."""

    root: str
    member: str

    def __str__(self) -> str:
        return f"{self.root}/{self.member}"


class Pixels(NamedTuple):
    """A decoded image."""

    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    """(H, W, C), C is 1 or 3; not to be written to"""
    grey: bool
    """Whether the file itself holds no colour."""


class Sources:
    """Reads sources. Keeps archives open, for each process anew: workers must not share a file position."""

    def __init__(self) -> None:
        self._archives: dict[tuple[int, str], zipfile.ZipFile] = {}
        self._folders: dict[str, bool] = {}  # whether a root is one

    def __getstate__(self) -> dict[str, Any]:
        return {"_archives": {}, "_folders": {}}  # handles stay behind when a worker process is spawned

    def read(self, source: Source) -> bytes:
        """The bytes of an image file. Raises BadImage when its archive is damaged at that place."""
        root, member = source
        if root not in self._folders:
            self._folders[root] = os.path.isdir(root)
        if self._folders[root]:
            with open(os.path.join(root, member), "rb", buffering=0) as file:
                return file.readall()
        try:
            archive = self.archive(source.root)
            if archive.getinfo(source.member).file_size > LARGEST_FILE:
                raise BadImage(f"larger than {LARGEST_FILE >> 20} MB")
            return archive.read(source.member)
        except (
            zipfile.BadZipFile,
            KeyError,
            EOFError,
            NotImplementedError,
            RuntimeError,
            zlib.error,
        ) as error:
            raise BadImage(f"damaged in the archive ({error})") from error

    def archive(self, root: str) -> zipfile.ZipFile:
        """The open archive at `root`."""
        place = os.getpid(), root
        if place not in self._archives:
            self._archives[place] = zipfile.ZipFile(root)
        return self._archives[place]


def decoded(sources: Sources, source: Source, image_size: tuple[int, int] | None, channels: int) -> Pixels:
    """Decode one image to `channels` (1: grey, 3: RGB) and to `image_size` (height, width) unless it is None.

    Resizing keeps proportions: the middle is cut to those of `image_size` and scaled, bilinear with
    antialiasing (`PIL.ImageOps.fit`). Transparency is dropped, 16 bits per channel become 8.
    Raises BadImage for what cannot be decoded and for images beyond Pillow's limit on decompression bombs.
    """
    content = sources.read(source)
    if not content:
        raise BadImage("zero bytes")
    limit = Image.MAX_IMAGE_PIXELS or 2**63
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP"))
        if image.width * image.height > limit:
            raise BadImage(f"{image.width}×{image.height} pixels, beyond the limit of {limit / 1e6:.0f} million")
        image.load()
    except UnidentifiedImageError as error:
        raise BadImage("no PNG, JPEG or WebP") from error
    except Image.DecompressionBombError as error:
        raise BadImage(f"beyond the limit of {limit / 1e6:.0f} million pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        if isinstance(error, BadImage):
            raise
        raise BadImage(str(error) or type(error).__name__) from error
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion cuts off at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535).astype(np.uint16) >> 8).astype(np.uint8))
    grey = image.mode in ("1", "L", "LA", "La")
    wanted = "L" if channels == 1 else "RGB"
    if image.mode != wanted:
        image = image.convert(wanted)
    if image_size is not None and image.size != image_size[::-1]:
        image = ImageOps.fit(image, image_size[::-1], method=Image.Resampling.BILINEAR)
    return Pixels(np.asarray(image).reshape(image.height, image.width, channels), grey)
