"""Recipes that must suit whatever is brought: few images, few epochs, rare classes."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from sklearn.metrics import balanced_accuracy_score

from tests.cli.conftest import Desk

BRIGHTNESS = {"dark": 0, "light": 100}


def images(root, train, test):
    """Noise of 8×8 pixels that is dark or light, so many of each class."""
    random = np.random.default_rng(0)
    for part, counts in (("train", train), ("test", test)):
        for (name, base), count in zip(BRIGHTNESS.items(), counts, strict=True):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(base, base + 128, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def results(desk):
    return [json.loads(file.read_text()) for file in sorted(desk.folder.glob("outputs/store/*/result.json"))]


def test_the_default_recipe_learns_from_few_images_in_few_epochs(tmp_path):
    desk = Desk(tmp_path)
    images(tmp_path / "few", (20, 20), (5, 5))
    words = ["dataset=folder", "dataset.root=few", "student=resnet8", "device=cpu"]
    output = desk.runs("train", "baseline", *words, "recipe.epochs=6", "recipe.batch_size=8", "seeds=2")
    assert [r["selected"]["test"]["accuracy"] for r in results(desk)] == [1, 1]
    assert "recipe.warmup_epochs=0.3, scaled to recipe.epochs=6 (3 is for 60 epochs)" in output
    assert re.search(r"running train [\d.]+%, val", output)
    steps = 6 * 5  # 36 images are left to train on
    assert f"all accuracies are those of averaged weights (decay: baseline {1 - 1 / (0.1 * steps):g})" in " ".join(
        output.split()
    )
    output = desk.runs("train", "baseline", *words, "budget=quick", COLUMNS="160")
    assert float(re.search(r"^baseline .* ([\d.]+) +– +– +– +1 ", output, re.MULTILINE)[1]) >= 90


def test_rare_classes_are_learned_and_chosen_by_where_that_was_typed(tmp_path):
    desk = Desk(tmp_path)
    images(tmp_path / "rare", (30, 3), (9, 9))
    words = ["dataset=folder", "dataset.root=rare", "dataset.val_fraction=0.34", "student=mlp", "seeds=1", "device=cpu"]
    output = desk.runs("train", "baseline", *words, "recipe=quick", "recipe.epochs=3", "recipe.select=balanced",
                     "recipe.class_weights=balanced")  # fmt: skip
    assert results(desk)[0]["formula"] == "CE(y, p_s; balanced classes)"
    assert "baseline: L = CE(y, p_s; balanced classes)" in output
    assert "epoch chosen on validation by the mean accuracy over classes" in " ".join(output.split())
    (file,) = desk.folder.glob("outputs/store/*/history.csv")
    header, *rows = [line.split(",") for line in file.read_text().splitlines()]
    balanced = [float(row[header.index("val_balanced_accuracy")]) for row in rows]
    (result,) = results(desk)
    assert balanced[result["selected"]["epoch"] - 1] == max(balanced)
    kept = load_file(file.parent / "logits.safetensors")
    assert max(balanced) == pytest.approx(balanced_accuracy_score(kept["val_labels"], kept["val"].argmax(1)))
