import subprocess
import sys

import numpy as np
import torch
from sklearn.datasets import load_digits

from kdrun import data
from tests.data.given import SPLIT


def digits(**changed):
    return data.load("digits.digits", name="digits", **{**SPLIT, **changed})


def test_the_digits_are_those_of_scikit_learn_with_every_grey_level_kept_apart():
    loaded = digits()
    theirs = load_digits()
    ours = torch.cat([loaded.train.images, loaded.test.images]).squeeze(1).numpy()
    levels = np.rint(ours * (16 / 255)).astype(int)
    assert sorted(map(bytes, levels.reshape(1797, 64).astype(np.uint8))) == sorted(
        map(bytes, theirs.images.reshape(1797, 64).astype(np.uint8))
    )
    labels = torch.cat([loaded.train.labels, loaded.test.labels]).bincount()
    assert labels.tolist() == np.bincount(theirs.target).tolist()


def test_the_test_set_is_fixed_stratified_and_apart_from_the_split_seed():
    assert digits().val is None and len(digits().train) == 1437
    first, second = digits(val_fraction=0.1), digits(val_fraction=0.3, split_seed=9)
    assert torch.equal(first.test.images, second.test.images)
    assert (len(first.train), len(first.val), len(first.test)) == (1293, 144, 360)
    assert first.test.labels.bincount().tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert first.test.labels[:8].tolist() == GOLDEN_LABELS


def test_the_digest_names_the_content_and_not_the_split():
    assert digits().digest == digits(val_fraction=0.1, split_seed=3).digest == GOLDEN


def test_statistics_are_those_of_the_training_images():
    loaded = digits()
    pixels = loaded.train.images.double() / 255
    assert abs(loaded.mean[0] - pixels.mean()) < 1e-6
    assert abs(loaded.std[0] - pixels.std(correction=0)) < 1e-6


def test_neither_scikit_learn_nor_torchvision_is_imported_to_load_them():
    script = (
        "import sys; from kdrun import data; assert 'torch' not in sys.modules;"
        "data.load('digits.digits', name='d', val_fraction=0.1, split_seed=0);"
        "print([m for m in ('sklearn', 'torchvision', 'torch._dynamo') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


GOLDEN = "e61842ea94636a0c55e92fa2d9350f286f7b85f25c44b21be859ec4d9f13679f"
GOLDEN_LABELS = [0, 8, 9, 3, 4, 5, 8, 9]
