"""Writing a trained network as a file: its inputs are raw pixels, of as many images at once as one likes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from kdrun.export.network import Trained
from kdrun.export.quiet import quiet
from kdrun.export.sheet import NAME, Sheet
from kdrun.store import write_atomic

INSIDE = "kdrun"  # under which safetensors and ONNX keep the sheet among their metadata
Save = Callable[[Path], None]


def write(network: Trained, sheet: Sheet, folder: Path) -> Path:
    """Write a network (on the CPU, in eval mode) and its sheet into a folder, and give the model file.

    Raises ValueError, with nothing written, where the network has no form that the format could hold.
    """
    save = {"safetensors": _safetensors, "onnx": _onnx, "torch_export": _torch_export}[sheet.format](network, sheet)
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / sheet.file)
    write_atomic(folder / NAME, sheet.json().encode())
    return folder / sheet.file


def _safetensors(network: Trained, sheet: Sheet) -> Save:
    """The weights alone, under the names that any file of weights for this network has."""
    # copies: safetensors takes no two names of one tensor, as a network that ties layers has
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
                dynamic_shapes=({0: "batch"},),  # which only names the axis: that it is free the program says
            )
    except Exception as error:  # an operation without a counterpart in ONNX
        raise _impossible(sheet, "ONNX cannot hold", error) from error
    for node in made.model.graph:
        node.metadata_props.clear()  # where in the sources each operation was called, on this machine
    made.model.metadata_props[INSIDE] = sheet.json()
    return lambda file: made.save(file, external_data=False)


def traced(network: Trained, sheet: Sheet) -> torch.export.ExportedProgram:
    """Return the graph of a network for any number of images. Raises ValueError where it cannot be traced."""
    images = torch.zeros(2, sheet.channels, *sheet.image_size, dtype=torch.uint8)  # one alone would stay one
    batch = torch.export.Dim("batch", min=1)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    except Exception as error:  # whatever a foreign network does that torch cannot follow
        raise _impossible(sheet, "torch.export cannot trace", error) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _impossible(sheet: Sheet, what: str, error: Exception) -> ValueError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(
        f"format={sheet.format}: {what} {sheet.model} ({reason}); format=safetensors keeps the weights as they are"
    )
