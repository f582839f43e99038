"""Sound samples of the files that kdrun reads one by one, and of the store and the checkpoints."""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from kdrun import models
from kdrun.export.network import open_weights
from kdrun.export.sheet import Sheet
from kdrun.files import RunFailed
from kdrun.measuring import cache
from kdrun.models.weights import load_weights
from kdrun.spec import Spec
from kdrun.store import Store
from kdrun.training import checkpoint as checkpoints
from tests.fuzz import judge
from tests.fuzz.kinds import Kind, scratch
from tests.results.given import DIVERGED


def spec_of(**changed: Any) -> Spec:
    """Return a spec as a training has it."""
    values: dict[str, Any] = {
        "data": {"digest": "d" * 64, "val_fraction": 0.1, "split_seed": 0, "mean": [0.5], "std": [0.25]},
        "model": {"use": "mlp.Mlp", "arguments": {"hidden": [4]}, "num_classes": 3, "in_channels": 1,
                  "image_size": [4, 4], "digest": None},
        "objective": {"ce": {"use": "ce.CE", "weight": 1.0}}, "recipe": {"lr": 0.1, "epochs": 2, "milestones": [1]},
        "seed": 0, "precision": "fp32", "teachers": ("0123456789ab",),
    }  # fmt: skip
    return Spec(**{**values, **changed})


def network() -> torch.nn.Module:
    """Return a small network."""
    return models.build("mlp.Mlp", hidden=[4], num_classes=3, in_channels=1, image_size=(4, 4), seed=0)


def fingerprint(state: dict[str, torch.Tensor]) -> str:
    """Return a digest of tensors by name."""
    whole = hashlib.sha256()
    for name, value in state.items():
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    return whole.hexdigest()


def spec() -> Kind:
    """Return spec.json."""

    def read(folder: Path) -> str:
        spec = Spec.from_json((folder / "spec.json").read_text())
        assert Spec.from_json(spec.json()) == spec and len(spec.fingerprint) == 12
        return spec.canonical()

    return Kind("spec.json", read, {"spec.json": spec_of().json().encode()}, ["spec.json"])


def sheet() -> Kind:
    """Return the description of an export."""
    spec = spec_of()
    known = Sheet(
        "safetensors", "mlp", "digits", "student", 0, ("a", "b", "c"), (4, 4), 1, (0.5,), (0.25,),
        json.loads(spec.json()), spec.fingerprint, {"kdrun": "1"}, "2026",
    )  # fmt: skip

    def read(folder: Path) -> Any:
        sheet = Sheet.from_json((folder / "kdrun.json").read_text(), folder / "kdrun.json")
        net = open_weights(folder / "model.safetensors", sheet)
        logits = net(torch.zeros(1, sheet.channels, *sheet.image_size))
        return sheet.classes, [sheet.classes[i] for i in logits.argsort()[0]], sheet.title

    weights = safetensors.torch.save(network().state_dict())
    return Kind("kdrun.json", read, {"kdrun.json": known.json().encode(), "model.safetensors": weights}, ["kdrun.json"])


def measured() -> Kind:
    """Return a measurement that is kept beside an artifact."""
    settings = {"kind": "quick"}

    def read(folder: Path) -> Any:
        content = cache.cached(folder, "cost", settings)
        return None if content is None else content["macs"]

    with scratch() as place:
        cache.cache(place, "cost", settings, {"sitting": 1, "macs": 10, "latency": {}, "memory": {}})
        files = judge.taken(place)
    return Kind("measured/*.json", read, files, list(files), also=[None])


def _weights(name: str, file: str, content: bytes) -> Kind:
    def read(folder: Path) -> str:
        net = network()
        load_weights(net, folder / file)
        assert all(bool(p.isfinite().all()) for p in net.parameters())
        return fingerprint(net.state_dict())

    pickles = [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"<html>", _hostile_pickle()]
    return Kind(name, read, {file: content}, [file], (ValueError,), pickles)


class _Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def _hostile_pickle() -> bytes:
    content = io.BytesIO()
    torch.save({"state": _Runs()}, content)
    return content.getvalue()


def torch_file(**how: Any) -> bytes:
    """Return what torch.save writes of a training script's checkpoint."""
    content = io.BytesIO()
    torch.save({"model": network().state_dict(), "epoch": 3}, content, **how)
    return content.getvalue()


def store() -> Kind:
    """Return the files of an artifact, all but result.json."""
    described, state = spec_of(), network().state_dict()
    files = {
        "spec.json": described.json().encode(), "history.csv": b"epoch,loss\n1,0.5\n",
        "model.safetensors": safetensors.torch.save(state),
        "logits.safetensors": safetensors.torch.save({"test": torch.zeros(4, 3)}),
    }  # fmt: skip

    def read(folder: Path) -> Any:
        artifact = Store(folder / "store").find(described.fingerprint)
        assert artifact is not None
        return artifact.spec.canonical(), json.dumps(artifact.result, sort_keys=True)

    with scratch() as place:
        opened = Store(place / "store")
        result = DIVERGED | {"fingerprint": described.fingerprint, "seed": described.seed}
        opened.commit(opened.folder("student", "digits", "mlp", described), dict(files), result)
        kept = judge.taken(place)
    return Kind("store", read, kept, [name for name in kept if not name.endswith("result.json")])


def checkpoint() -> Kind:
    """Return the last two checkpoints of a training."""
    states = [{"model": network().state_dict(), "epoch": epoch, "order": [1, 2]} for epoch in (1, 2)]

    def read(folder: Path) -> Any:
        state = checkpoints.load(folder / "checkpoint")
        assert state is not None
        return state["epoch"], fingerprint(state["model"])

    with scratch() as place:
        for number, state in enumerate(states):
            checkpoints.save(place / "checkpoint", number, state)
        files = judge.taken(place)
    before = (1, fingerprint(states[0]["model"]))
    return Kind("checkpoint", read, files, list(files), (RunFailed,), [_hostile_pickle()], also=[before])


def weights() -> list[Kind]:
    """Return the three formats of weight files."""
    safe = safetensors.torch.save(network().state_dict())
    return [
        _weights("weights of safetensors", "w.safetensors", safe),
        _weights("weights of torch", "w.pt", torch_file()),
        _weights("weights of old torch", "w.pt", torch_file(_use_new_zipfile_serialization=False)),
    ]


def alone() -> list[Kind]:
    """Return all of them."""
    return [spec(), sheet(), measured(), store(), checkpoint(), *weights()]
