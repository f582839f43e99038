"""The sheet of an exported network: its inputs, its preprocessing, its classes and its origin. No torch.

It is stored as kdrun.json beside the model file, and also inside the model file, so that this can be moved on its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdrun import checks
from kdrun.artifact import Artifact
from kdrun.spec import Spec
from kdrun.store import Store
from kdrun.version import __version__

NAME = "kdrun.json"
CARD = "MODEL_CARD.md"
VERSION = 1  # of the sheet's format; raised if older versions of kdrun would misread it
AS_IS = ("format", "model", "dataset", "role", "seed", "fingerprint", "versions", "created", "spec")  # in kdrun.json
FILES = {"safetensors": "model.safetensors", "onnx": "model.onnx", "torch_export": "model.pt2"}
FORMATS = {Path(file).suffix: name for name, file in FILES.items()}
NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime")}  # packages that a format needs besides kdrun's own dependencies


@dataclass(frozen=True)
class Sheet:
    """The description of a network from images, uint8 (N, channels, *image_size), to logits (N, classes)."""

    format: str
    model: str
    dataset: str
    role: str
    seed: int
    classes: tuple[str, ...]
    image_size: tuple[int, int]  # height and width
    channels: int  # 1 for grey, 3 for colour (RGB)
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]; the exported network subtracts it itself
    std: tuple[float, ...]
    spec: Mapping[str, Any]
    fingerprint: str
    versions: Mapping[str, str]
    created: str

    @classmethod
    def of(cls, artifact: Artifact, format: str, role: str | None = None) -> Sheet:
        """Return the sheet of an artifact; `role` is its role in its run, if not the one that it was trained in."""
        spec, result = artifact.spec, artifact.result
        return cls(
            format=format,
            model=result["model"],
            dataset=result["dataset"],
            role=role or result["role"],
            seed=spec.seed,
            classes=tuple(result["classes"]),
            image_size=(spec.model["image_size"][0], spec.model["image_size"][1]),
            channels=spec.model["in_channels"],
            mean=tuple(spec.data["mean"]),
            std=tuple(spec.data["std"]),
            spec=json.loads(spec.json()),
            fingerprint=artifact.fingerprint,
            versions={"kdrun": __version__, **{k: v for k, v in result["versions"].items() if k != "kdrun"}},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @property
    def file(self) -> str:
        """The name of the model file."""
        return FILES[self.format]

    @property
    def title(self) -> str:
        """The network in words."""
        return f"{self.role} {self.model} (seed {self.seed}, {self.fingerprint}), trained on {self.dataset}"

    @property
    def colours(self) -> str:
        """The colours of its images in words."""
        return "grey" if self.channels == 1 else "RGB"

    def preprocessing(self) -> str:
        """Describe the preprocessing of an image file in words."""
        height, width = self.image_size
        cut = f"cropped around the centre to the aspect ratio of {width}×{height} and resized to it (bilinear)"
        return f"upright by its EXIF tag, {self.colours}, {cut}"

    def json(self) -> str:
        """Return the content of kdrun.json."""
        whole = {
            "kdrun_export": VERSION,
            "file": self.file,
            "input": {"name": "images", "dtype": "uint8", "shape": ["batch", self.channels, *self.image_size],
                      "values": "0 to 255", "channels": self.colours},
            "output": {"name": "logits", "dtype": "float32", "shape": ["batch", len(self.classes)]},
            "preprocessing": {
                "orientation": "upright by the file's EXIF tag (PIL.ImageOps.exif_transpose)",
                "channels": self.channels, "image_size": list(self.image_size),
                "resize": "cut to the proportions around the middle, then bilinear with antialiasing "
                          "(PIL.ImageOps.fit, BILINEAR)",
                "normalisation": "(pixel / 255 - mean) / std, inside of the exported network",
                "mean": list(self.mean), "std": list(self.std),
            },
            "classes": list(self.classes),
            **{key: getattr(self, key) for key in AS_IS},
        }  # fmt: skip
        return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> Sheet:
        """Read the content of kdrun.json.

        Raise ValueError, naming `where`, if it is not a sheet, is damaged, or was written by a newer kdrun.
        """
        try:
            whole = json.loads(text)
            version = whole["kdrun_export"]
            if version > VERSION:
                raise ValueError(
                    f"was written by a newer kdrun (its sheet has version {version}, this kdrun reads {VERSION})"
                )
            given = whole["preprocessing"]
            height, width = given["image_size"]
            sheet = cls(
                classes=tuple(whole["classes"]),
                image_size=(int(height), int(width)),
                channels=int(given["channels"]),
                mean=tuple(given["mean"]),
                std=tuple(given["std"]),
                **{key: whole[key] for key in AS_IS},
            )
            sheet._hold_against_spec()
        except KeyError as error:
            raise ValueError(f"{where}: is not a kdrun export, or damaged (its description has no {error})") from None
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{where}: is not a kdrun export, or damaged ({error})") from None
        return sheet

    def _hold_against_spec(self) -> None:
        """Raise ValueError if the spec's fingerprint is another, or if the sheet's other fields contradict the spec."""
        spec = Spec.from_json(json.dumps(self.spec))
        if spec.fingerprint != self.fingerprint:
            raise ValueError(f"its spec has the fingerprint {spec.fingerprint}, not {self.fingerprint}")
        if not all(isinstance(name, str) for name in (*self.classes, self.model, self.dataset, self.role)):
            raise ValueError("a name in it is not text")
        if self.format not in FILES:
            raise ValueError(f"its format is {self.format!r}, not one of {', '.join(FILES)}")
        model, data = spec.model, spec.data
        own = (self.image_size, self.channels, self.mean, self.std, self.seed, len(self.classes))
        size, mean, std = tuple(model["image_size"]), tuple(data["mean"]), tuple(data["std"])
        if own != (size, model["in_channels"], mean, std, spec.seed, model["num_classes"]):
            raise ValueError("its images, classes or seed do not match its spec")


def in_folder(folder: Path) -> Path | None:
    """Return the model file of an export folder, or None if the folder is not an export.

    Raise ValueError if its sheet is damaged or its model file is gone.
    """
    if not (folder / NAME).is_file():
        return None
    file = folder / _written(folder / NAME).file
    if not file.is_file():
        raise ValueError(f"{folder}: its {file.name} is missing; export it again")
    return file


def missing(format: str) -> str | None:
    """Return what to install for a format, or None if nothing is missing."""
    absent = [name for name in NEEDS.get(format, ()) if not checks.installed(name)]
    if not absent:
        return None
    return f"format={format}: needs {', '.join(absent)}, not installed here; type pip install 'kdrun[onnx]'"


def sheet_in(file: Path) -> Sheet:
    """Read the sheet of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            text = (opened.metadata() or {}).get("kdrun")
    except (OSError, SafetensorError) as error:
        raise damaged(file, error) from None
    return written_in(file, text)


def sheet_of(file: Path) -> Sheet | None:
    """Return the sheet of a weights file, from inside or beside the file; None for weights that kdrun did not write.

    For weights in a store, make the sheet from the artifact's files. Raise ValueError if the sheet is damaged, and
    what Store.find raises.
    """
    from safetensors import SafetensorError, safe_open

    if file.suffix == ".safetensors":
        with contextlib.suppress(OSError, SafetensorError), safe_open(file, framework="numpy") as opened:
            if text := (opened.metadata() or {}).get("kdrun"):
                return Sheet.from_json(text, file)
    if (beside := file.parent / NAME).is_file():
        sheet = _written(beside)
        return sheet if sheet.file == file.name else None
    named = re.fullmatch(".+-([0-9a-f]{12})", file.parent.name)
    artifact = Store(file.parent.parent).find(named[1]) if named else None
    if artifact is None or file.name not in artifact.result["checksums"]:
        return None
    return Sheet.of(artifact, "safetensors")


def _written(file: Path) -> Sheet:
    """Read a kdrun.json. Raise ValueError if it is damaged, or cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise damaged(file, error) from None
    return Sheet.from_json(text, file)


def written_in(file: Path, inside: str | None) -> Sheet:
    """Return the sheet inside a file, else the one beside it: other tools may drop metadata when rewriting a file."""
    if inside:
        return Sheet.from_json(inside, file)
    beside = file.parent / NAME
    if not beside.is_file():
        raise ValueError(
            f"{file}: has no description of its classes and input images, and there is no {NAME} beside it; "
            "was it exported by kdrun?"
        )
    return _written(beside)


def damaged(file: Path, error: Exception) -> ValueError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(f"{os.fspath(file)}: cannot be opened, it is damaged or of another format ({reason})")
