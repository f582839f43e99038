"""From image files, in folders or in archives, to pixels."""

import io
import os
import stat
import zipfile
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
KINDS = "PNG, JPEG, WebP, BMP, TIFF or GIF"
"""The formats, for messages."""
DECODER = 2
"""Version of the decoder. Increase it if a file gives other pixels than before, so that older decoded copies are not
read. 2: turned upright by the EXIF tag."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by its EXIF orientation; 1 is upright."""
TAGGED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Keys under which Pillow keeps metadata that may hold an orientation; most images have none of them."""
LARGEST_FILE = 512 * 2**20
"""Most bytes of one image file: an archive may claim any size for a member."""


class BadImage(ValueError):
    """A file is not an image that can be decoded; the message is the reason alone."""


class Source(NamedTuple):
    """The place of an image: a folder or .zip archive, and its path inside, with forward slashes."""

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
    """Reads sources and keeps archives open, separately in each process: workers must not share a file position."""

    def __init__(self) -> None:
        self._archives: dict[tuple[int, str], zipfile.ZipFile] = {}
        self._folders: dict[str, bool] = {}  # by root: whether it is a folder

    def __getstate__(self) -> dict[str, Any]:
        return {"_archives": {}, "_folders": {}}  # open files are not passed on when a worker process is spawned

    def read(self, source: Source) -> bytes:
        """Return the bytes of an image file. Raise BadImage if it cannot be read or is no regular file."""
        root, member = source
        if root not in self._folders:
            self._folders[root] = os.path.isdir(root)
        if self._folders[root]:
            return _content(os.path.join(root, member))
        try:
            archive = self.archive(source.root)
            if archive.getinfo(source.member).file_size > LARGEST_FILE:
                raise BadImage(f"larger than {LARGEST_FILE >> 20} MB")
            return archive.read(source.member)
        except BadImage:
            raise
        except OSError as error:
            raise BadImage(error.strerror or str(error)) from error
        except Exception as error:  # a damaged archive raises any kind of error in its reader
            raise BadImage(f"damaged in the archive ({error})") from error

    def archive(self, root: str) -> zipfile.ZipFile:
        """Return the open archive at `root`."""
        place = os.getpid(), root
        if place not in self._archives:
            self._archives[place] = zipfile.ZipFile(root)
        return self._archives[place]


def _content(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0, opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadImage("not a regular file")
            if status.st_size > LARGEST_FILE:
                raise BadImage(f"larger than {LARGEST_FILE >> 20} MB")
            return file.readall()
    except OSError as error:
        if os.path.islink(path) and not os.path.exists(path):
            raise BadImage(f"a broken link, to {os.readlink(path)}") from error
        raise BadImage(error.strerror or str(error)) from error


def _without_waiting(path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe, which may never come."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def decoded(sources: Sources, source: Source, image_size: tuple[int, int] | None, channels: int) -> Pixels:
    """Decode one image to `channels` (1: grey, 3: RGB) and to `image_size` (height, width) unless it is None.

    It is turned upright by its EXIF orientation before anything else; of several frames or pages the first is taken.
    Resizing keeps proportions: the centre is cropped to the proportions of `image_size` and scaled, bilinear with
    antialiasing (`PIL.ImageOps.fit`). Transparency is dropped, 16 bits per channel become 8.
    Raise BadImage if the image cannot be decoded or is beyond Pillow's limit on decompression bombs.
    """
    content = sources.read(source)
    if not content:
        raise BadImage("zero bytes")
    limit = Image.MAX_IMAGE_PIXELS or 2**63
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > limit:
            raise BadImage(f"{image.width}×{image.height} pixels, beyond the limit of {limit / 1e6:.0f} million")
        image.load()
    except UnidentifiedImageError as error:
        raise BadImage(f"not a {KINDS} file") from error
    except Image.DecompressionBombError as error:
        raise BadImage(f"beyond the limit of {limit / 1e6:.0f} million pixels") from error
    except BadImage:
        raise
    except Exception as error:  # a damaged file raises any kind of error in its reader
        raise BadImage(str(error) or type(error).__name__) from error
    turn = _turn(image)
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion cuts off at 255
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise BadImage(f"values from {deep.min()} to {deep.max()}, beyond 16 bits")
        image = Image.fromarray((deep.astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise BadImage("floating-point values of unknown scale")
    grey = image.mode in ("1", "L", "LA", "La")
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if turn is not None:
        image = image.transpose(turn)
    if image_size is not None and image.size != image_size[::-1]:
        image = ImageOps.fit(image, image_size[::-1], method=Image.Resampling.BILINEAR)
    return Pixels(np.asarray(image).reshape(image.height, image.width, channels), grey)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return how to turn a loaded image upright; None if it is upright (as a loaded TIFF is) or its EXIF is damaged."""
    if TAGGED.isdisjoint(image.info):
        return None
    try:
        return UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow documents no type of error; the pixels are sound
        return None
