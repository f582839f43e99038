"""Open exported networks, each in its own runtime, as functions from pixels to logits. Imports torch only if needed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdrun.checks import no_file
from kdrun.export.quiet import quiet
from kdrun.export.sheet import FORMATS, NAME, Sheet, damaged, sheet_in, written_in

if TYPE_CHECKING:
    import torch
    from torch import nn

Classify = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # pixels (N, C, H, W), 0 to 255, to logits (N, classes)


@dataclass(frozen=True)
class Exported:
    """An opened network: its sheet, its function, and its runtime."""

    sheet: Sheet
    classify: Classify
    runtime: str
    reason: str = ""  # why it was chosen among several
    warning: str = ""  # why it may be a poor choice


def open_exported(file: Path, device: str = "cpu", threads: int | None = None) -> Exported:
    """Open a model file on a device (an ONNX file always on the CPU); only ONNX Runtime reads `threads`, not torch.

    Raise ValueError if the file is not a model file, is damaged, or has no sheet.
    """
    format = FORMATS.get(file.suffix)
    if format is None:
        raise ValueError(f"{file}: is not an exported network; these end in {', '.join(FORMATS)}")
    if not file.is_file():
        raise ValueError(f"{file}: {no_file(file)}")
    opened = {"safetensors": _safetensors, "onnx": _onnx, "torch_export": _torch_export}[format]
    return opened(file, device, threads)


def _onnx(file: Path, device: str, threads: int | None) -> Exported:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ValueError(f"{file}: needs onnxruntime; type pip install 'kdrun[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise damaged(file, error) from None
    sheet = written_in(file, session.get_modelmeta().custom_metadata_map.get("kdrun"))
    (images,), (logits,) = session.get_inputs(), session.get_outputs()

    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        made: NDArray[np.float32] = session.run([logits.name], {images.name: pixels})[0]
        return made

    return Exported(sheet, classify, f"onnxruntime {onnxruntime.__version__}")


def _torch_export(file: Path, device: str, threads: int | None) -> Exported:
    import torch
    from torch.export.passes import move_to_device_pass

    try:  # first, so that torch opens only files that kdrun exported
        with zipfile.ZipFile(file) as archive:
            inside = [archive.read(name).decode() for name in archive.namelist() if name.endswith(f"/{NAME}")]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise damaged(file, error) from None
    sheet = written_in(file, inside[0] if inside else None)
    try:
        with quiet():
            program = torch.export.load(file)
    except Exception as error:
        raise damaged(file, error) from None
    if device != "cpu":
        program = move_to_device_pass(program, device)
    return Exported(sheet, through_torch(program.module(), device), f"torch.export {torch.__version__}")


def _safetensors(file: Path, device: str, threads: int | None) -> Exported:
    import torch

    from kdrun.export.network import open_weights

    sheet = sheet_in(file)
    return Exported(sheet, through_torch(open_weights(file, sheet).to(device), device), f"torch {torch.__version__}")


def through_torch(network: nn.Module, device: str | torch.device) -> Classify:
    """Return a function of numpy arrays that runs a module on `device`; it moves the arrays there and back."""
    import torch

    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = network(torch.from_numpy(pixels).to(device)).float().cpu().numpy()
        return logits

    return classify
