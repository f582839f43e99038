"""No answer is no hit: NaN among the logits never counts as right, whoever counts."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from kdrun.config import Robustness
from kdrun.data.batches import Batch
from kdrun.data.sets import ImageSet
from kdrun.evaluation import calibration, classes, missing
from kdrun.evaluation.accuracy import accuracy, correct
from kdrun.evaluation.fidelity import agreement
from kdrun.evaluation.hits import hits
from kdrun.measuring import robustness
from kdrun.measuring.attacks import ascent
from kdrun.models.base import Outputs
from kdrun.training.measure import measure

NAN = math.nan
# right, right, NaN in the label's place, NaN elsewhere, all NaN, wrong; argmax calls the third and fifth right
Z = np.array([[2, 1, 0], [0, 3, 1], [0, 1, NAN], [NAN, 5, 0], [NAN, NAN, NAN], [0, 1, 2]], dtype=np.float32)
Y = np.array([0, 1, 2, 1, 0, 1])
RIGHT = [True, True, False, False, False, False]


def test_stored_logits_and_those_on_a_device_are_counted_alike():
    assert correct(Z, Y).tolist() == RIGHT == hits(torch.tensor(Z), torch.tensor(Y)).tolist()
    assert accuracy(Z, Y) == pytest.approx(2 / 6)
    assert (Z.argmax(axis=1) == Y).sum() == 4  # what it guards against


def test_no_answer_is_not_that_of_an_unlabelled_sample():
    unlabelled = np.full(6, -1)
    assert not correct(Z, unlabelled).any() and not hits(torch.tensor(Z), torch.tensor(unlabelled)).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_hits_are_those_of_argmax_where_there_is_no_nan(dtype):
    z = torch.randn(500, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    z[:9, 3] = math.inf
    y = torch.arange(500) % 7
    assert torch.equal(hits(z, y), z.argmax(1) == y)


def test_every_number_made_of_stored_logits_leaves_it_out():
    counts = classes.confusion(Z, Y)
    assert (counts.sum(), np.diag(counts).tolist()) == (6, [1, 1, 0])
    wide = np.column_stack([Z, np.full((6, 4), -9.0)]).astype(np.float32)
    assert classes.top_k(wide, Y) == pytest.approx(3 / 6)  # the three that have an answer
    assert classes.top_k(wide, Y, 1) == accuracy(wide, Y)
    assert agreement(Z, Z) == pytest.approx(3 / 6)
    bins = calibration.reliability(Z, Y)
    assert bins.count.sum() == 3 and np.isfinite(bins.ece)
    assert missing.best_offset(Z, Y, [0]) == missing.best_offset(Z[[0, 1, 5]], Y[[0, 1, 5]], [0])
    assert missing.best_offset(Z[2:5], Y[2:5], [0]) == 0


class Given(nn.Module):
    """A network whose logits are known: those of the sample whose number the first pixel holds."""

    def forward(self, images):
        z = torch.tensor(Z)[(images[:, 0, 0, 0] * 255).round().long()]
        return Outputs(z, {}, {}, z)


def test_a_network_that_is_run_is_counted_so():
    images = torch.arange(6).view(6, 1, 1, 1).expand(6, 1, 2, 2).to(torch.uint8)
    labels = torch.tensor(Y)
    batch = Batch(images.float() / 255, labels, torch.arange(6), 0)
    assert measure(Given(), [batch], "fp32", torch.device("cpu")).accuracy == pytest.approx(2 / 6)
    test, how = (
        ImageSet(images.contiguous(), labels),
        Robustness(corruptions=["shift"], severities=[1], fgsm=[], pgd=[]),
    )
    result = robustness.measure("clean", how, {"a": lambda x: Given()(x).logits}, test, device=torch.device("cpu"),
                               batch_size=4)  # fmt: skip
    assert result == {"a": {"0": pytest.approx(2 / 6)}}


def test_an_attack_does_not_make_pixels_nan_where_the_gradient_is():
    """The root of 0 has no finite slope, and 0 times infinity is no number."""
    pixels = torch.tensor([0.0, 0.25]).view(1, 1, 1, 2)
    sign = ascent(lambda x: (0 * x.sqrt()).flatten(1) + x.flatten(1).detach(), pixels, torch.tensor([0]))
    assert sign.isfinite().all()
