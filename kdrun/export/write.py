"""Write a trained network as a file, for raw pixels in batches of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from kdrun.export.network import Trained
from kdrun.export.quiet import quiet
from kdrun.export.sheet import NAME, Sheet
from kdrun.files import write_atomic

INSIDE = "kdrun"  # the sheet's key in the metadata of safetensors and ONNX
Save = Callable[[Path], None]


def write(network: Trained, sheet: Sheet, folder: Path) -> Path:
    """Write a network (on the CPU, in eval mode) and its sheet into a folder, and return the path of the model file.

    Raise ValueError, with nothing written, if the format cannot hold the network.
    """
    save = {"safetensors": _safetensors, "onnx": _onnx, "torch_export": _torch_export}[sheet.format](network, sheet)
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / sheet.file)
    write_atomic(folder / NAME, sheet.json().encode())
    return folder / sheet.file


def _safetensors(network: Trained, sheet: Sheet) -> Save:
    """Return a function that saves only the weights, under the names in the network's state dict."""
    # clones: safetensors refuses a tensor that has two names, as tied layers have
    weights = {name: value.detach().clone().contiguous() for name, value in network.network.state_dict().items()}
    content = safetensors.torch.save(weights, metadata={INSIDE: sheet.json()})
    return lambda file: write_atomic(file, content)


def _torch_export(network: Trained, sheet: Sheet) -> Save:
    program = traced(network, sheet)
    return lambda file: torch.export.save(program, file, extra_files={NAME: sheet.json()})


def _onnx(network: Trained, sheet: Sheet) -> Save:
    program = traced(network, sheet)
    try:
        with quiet():
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: "batch"},),  # names the axis, which is dynamic in the program already
            )
    except Exception as error:  # an operation that ONNX lacks
        raise _impossible(sheet, "ONNX cannot represent", error) from error
    for node in made.model.graph:
        node.metadata_props.clear()  # source lines with paths of this machine
    made.model.metadata_props[INSIDE] = sheet.json()
    return lambda file: made.save(file, external_data=False)


def traced(network: Trained, sheet: Sheet) -> torch.export.ExportedProgram:
    """Return the graph of a network for any number of images. Raise ValueError if it cannot be traced."""
    images = torch.zeros(2, sheet.channels, *sheet.image_size, dtype=torch.uint8)  # not 1, a size that torch would fix
    batch = torch.export.Dim("batch", min=1)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    except Exception as error:  # any code of a user's network that torch cannot trace
        raise _impossible(sheet, "torch.export cannot trace", error) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _impossible(sheet: Sheet, what: str, error: Exception) -> ValueError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(
        f"format={sheet.format}: {what} {sheet.model} ({reason}); format=safetensors exports the weights unchanged"
    )
