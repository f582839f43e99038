"""The code that loads an exported network: it is part of the model card, and tests run it."""

from __future__ import annotations

from kdrun.export.sheet import Sheet

IMPORTS = {
    "safetensors": "import kdrun, numpy as np, torch",
    "onnx": "import numpy as np, onnxruntime",
    "torch_export": "import numpy as np, torch",
}

IMAGE = """\
from PIL import Image, ImageOps
image = ImageOps.exif_transpose(Image.open("image.png")).convert("{mode}")
image = ImageOps.fit(image, ({width}, {height}), method=Image.Resampling.BILINEAR)
pixels = np.asarray(image).reshape(1, {height}, {width}, {channels}).transpose(0, 3, 1, 2).copy()  # uint8
"""

LOAD = {
    "safetensors": 'logits = kdrun.load("{file}")(torch.from_numpy(pixels))\n',
    "onnx": '(logits,) = onnxruntime.InferenceSession("{file}").run(None, {{"images": pixels}})\n',
    "torch_export": 'logits = torch.export.load("{file}").module()(torch.from_numpy(pixels))\n',
}

NEEDS = {
    "safetensors": "With kdrun:",
    "onnx": "With onnxruntime, without kdrun or torch:",
    "torch_export": "With torch, without kdrun:",
}

WEIGHTS = """\
Without kdrun, the file is a plain state dict of {use}; normalise pixels with the mean and std in kdrun.json:

```python
from safetensors.torch import load_file
weights = load_file("{file}")
```
"""


def code(sheet: Sheet) -> str:
    """Return the Python that classifies image.png from the export's folder, with `logits` at its end."""
    height, width = sheet.image_size
    mode = "L" if sheet.channels == 1 else "RGB"
    text = f"{IMPORTS[sheet.format]}\n{IMAGE}{LOAD[sheet.format]}"
    return text.format(mode=mode, height=height, width=width, channels=sheet.channels, file=sheet.file)


def snippet(sheet: Sheet) -> str:
    """Return the code as Markdown, with the command that does the same."""
    blocks = [
        NEEDS[sheet.format] + "\n",
        f"```python\n{code(sheet)}```\n",
        "The class names are in kdrun.json, in the order of the logits. From the command line:\n",
        f"    kdrun predict {sheet.file} image.png\n",
    ]
    if sheet.format == "safetensors":
        blocks.append(WEIGHTS.format(use=sheet.spec["model"]["use"], file=sheet.file))
    return "\n".join(blocks)
