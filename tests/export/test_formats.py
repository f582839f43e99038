"""Every network, in every format, gives the same logits for any number of images, and says what it is."""

import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import torch

from kdrun import config, models
from kdrun.command import groups
from kdrun.data.normalisation import Normalisation
from kdrun.export.parity import compare
from kdrun.export.read import open_exported, through_torch
from kdrun.export.write import write
from tests.export.given import CLASSES, network, pixels

ALL = [name for name in groups.options("student", [config.CONF]) if name not in ("torchvision", "external")]
GREY_28 = ("fashion_cnn", "fashion_resnet")


def exported(folder, name, format, **made):
    """Write a network; give it, its sheet, and what was read back."""
    net, sheet = network(name, **made)
    return net, sheet(format), open_exported(write(net, sheet(format), folder), threads=1)


def equal(net, opened, images):
    parity = compare(through_torch(net, "cpu")(images), opened.classify(images), np.zeros(len(images), int))
    assert parity.spread > 0 and parity.changed == 0 and parity.problem is None, parity
    return parity


@pytest.mark.parametrize("format", config.FORMATS)
def test_one_three_and_many_images_give_the_networks_logits(tmp_path, format):
    net, _, opened = exported(tmp_path, "mlp", format, hidden=[16])
    for count in (1, 3, 130):
        assert equal(net, opened, pixels(count)).images == count


@pytest.mark.parametrize("format", config.FORMATS)
def test_a_file_says_what_it_takes_and_gives_wherever_it_lies(tmp_path, format):
    _, sheet, opened = exported(tmp_path / "here", "mlp", format, hidden=[16])
    assert opened.sheet == sheet and sheet.classes == CLASSES
    alone = (tmp_path / "here" / sheet.file).rename(tmp_path / f"alone{(tmp_path / sheet.file).suffix}")
    assert open_exported(alone).sheet == sheet


@pytest.mark.parametrize("format", ["torch_export", "onnx"])
def test_a_network_with_convolutions_and_colour(tmp_path, format):
    net, _, opened = exported(tmp_path, "resnet8", format, size=(12, 10), channels=3, widths=[4, 8, 8], stem_width=4)
    assert equal(net, opened, pixels(5, (12, 10), 3)).deviation < 1e-5


def test_the_onnx_file_is_valid_and_takes_bytes_in_any_number(tmp_path):
    _, sheet, _ = exported(tmp_path, "mlp", "onnx", hidden=[16])
    model = onnx.load(tmp_path / sheet.file)
    onnx.checker.check_model(model, full_check=True)
    (images,), (logits,) = model.graph.input, model.graph.output
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (images, logits)]
    assert (images.name, logits.name) == ("images", "logits")
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert dims[0][1:] == [1, 8, 8] and dims[1][1:] == [3] and dims[0][0] == dims[1][0] == "batch"


def test_normalisation_is_inside_and_is_that_of_the_data(tmp_path):
    net, sheet, _ = exported(tmp_path, "mlp", "onnx", hidden=[16], channels=3)
    images = pixels(4, channels=3)
    normalised = Normalisation(sheet.mean, sheet.std, 8, torch.device("cpu"))(torch.from_numpy(images))
    with torch.no_grad():
        wanted = net.network(normalised.contiguous()).logits.numpy()
    (result,) = onnxruntime.InferenceSession(str(tmp_path / sheet.file)).run(None, {"images": images})
    np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)


def test_the_weights_are_those_of_the_network_and_nothing_else(tmp_path):
    net, sheet, _ = exported(tmp_path, "resnet8", "safetensors", channels=3)
    with safetensors.safe_open(tmp_path / sheet.file, framework="pt") as file:
        assert set(file.keys()) == set(net.network.state_dict())
    fresh, _ = network("resnet8", channels=3)
    torch.nn.init.zeros_(fresh.network.fc.weight)
    models.load_weights(fresh.network, tmp_path / sheet.file)  # as student.weights=FILE and teacher.from=FILE do
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), net.state_dict().values(), strict=True))


@pytest.mark.parametrize("format", ["safetensors", "onnx"])
def test_a_network_that_ties_two_layers_is_exported_too(tmp_path, format):
    net, sheets = network("mlp", hidden=[64, 64])
    first, second = (layer for layer in net.modules() if getattr(layer, "out_features", 0) == 64)
    second.weight = first.weight
    file = write(net, sheets(format), tmp_path)
    images = pixels(5)
    np.testing.assert_allclose(open_exported(file).classify(images), through_torch(net, "cpu")(images), atol=1e-5)


@pytest.mark.parametrize("format", ["torch_export", "onnx"])
def test_no_path_of_the_machine_travels_along(tmp_path, format):
    _, sheet, _ = exported(tmp_path, "mlp", format, hidden=[16])
    file = tmp_path / sheet.file
    whole = file.read_bytes()
    if format == "torch_export":
        with zipfile.ZipFile(file) as archive:
            whole = b"".join(archive.read(name) for name in archive.namelist())
    assert b"kdrun/models" not in whole and b"site-packages" not in whole


def test_a_network_that_cannot_be_traced_is_refused_with_nothing_written(tmp_path):
    net, sheet = network("mlp", hidden=[16])
    net.network.forward = lambda images: [0][int(images.sum())]  # depends on the values of pixels
    with pytest.raises(ValueError, match=r"torch\.export cannot trace mlp .*; format=safetensors exports the weights"):
        write(net, sheet("torch_export"), tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("format", ["safetensors", "torch_export"])
def test_a_file_written_on_the_cpu_runs_on_a_gpu(tmp_path, format):
    net, sheet = network("resnet8", size=(12, 12), channels=3)
    opened = open_exported(write(net, sheet(format), tmp_path), "cuda")
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    equal(net, opened, pixels(5, (12, 12), 3))


@pytest.mark.slow
@pytest.mark.parametrize("format", config.FORMATS)
@pytest.mark.parametrize("name", ALL)
def test_every_network_in_every_format(tmp_path, name, format):
    shape = {"size": (28, 28)} if name in GREY_28 else {"size": (16, 16), "channels": 3}
    net, _, opened = exported(tmp_path, name, format, **shape)
    for count in (1, 5):
        equal(net, opened, pixels(count, **shape))


@pytest.mark.slow
@pytest.mark.parametrize("format", config.FORMATS)
@pytest.mark.parametrize("settings", [{}, {"input_size": 48}, {"input_size": 20}, {"arch": "squeezenet1_1"}])
def test_torchvisions_networks_with_images_as_they_are_enlarged_and_reduced(tmp_path, settings, format):
    net, _, opened = exported(tmp_path, "torchvision", format, size=(32, 32), channels=3, **settings)
    for count in (1, 3):
        equal(net, opened, pixels(count, (32, 32), 3))


@pytest.mark.slow
@pytest.mark.parametrize("format", config.FORMATS)
def test_a_network_of_the_users_own_with_hooks_for_its_features(tmp_path, monkeypatch, format):
    (tmp_path / "mynets.py").write_text(
        "import torch.nn as nn\n"
        "class Tiny(nn.Sequential):\n"
        "    def __init__(self, num_classes, in_channels):\n"
        "        super().__init__(nn.Conv2d(in_channels, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2),\n"
        "                         nn.Flatten(), nn.Linear(16, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    net, _, opened = exported(tmp_path / "to", "external", format, target="mynets:Tiny", features=["1"])
    equal(net, opened, pixels(3))
