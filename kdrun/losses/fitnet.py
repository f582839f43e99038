"""Hints (Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015), as CRD's code compares them."""

from torch import Tensor, nn

from kdrun.data.batches import Batch
from kdrun.losses import layers
from kdrun.losses.base import Setting, at_least_float32
from kdrun.models.base import Outputs

__all__ = ["FitNet"]


def hint(predicted: Tensor, f_t: Tensor) -> Tensor:
    """Return the mean squared difference of each sample's maps, (N,) from (N, c, h, w).

    Romero et al. 2015, Eq. 3, which has half the sum; the mean is CRD's (RepDistiller, HintLoss), and the
    published weight of 100 goes with it.
    """
    return (predicted - f_t).square().flatten(1).mean(1)


class FitNet(layers.MapTerm):
    """MSE(r(f_s), f_t): the student's middle stage is to predict the teacher's.

    The regressor r is CRD's (RepDistiller, ConvReg): one convolution that brings the student's map to the
    teacher's size, BatchNorm and ReLU. The paper trains on hints before anything else; here, as in CRD, the
    hint is a term beside the others. Without names the middle of the stages paired by depth is compared
    (CRD's hint layer 2: the second stage of a ResNet, the third of a VGG). Raise ValueError, in `prepare`, if
    a layer does not exist.
    """

    regressor: nn.Module

    def __init__(self, student_layer: str | None = None, teacher_layer: str | None = None) -> None:
        super().__init__()
        self.student_layer, self.teacher_layer = student_layer, teacher_layer

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        paired = layers.pairs(student, teacher)
        middle = paired[(len(paired) - 1) // 2]
        self.named = ([self.student_layer or middle[0]], [self.teacher_layer or middle[1]])
        super().prepare(student, teacher, setting)
        ((f_s, f_t),) = self.maps(student, teacher)
        self.regressor = regressor(f_s, f_t)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        ((f_s, f_t),) = self.maps(student, teacher)
        predicted = self.regressor(at_least_float32(f_s))
        return hint(predicted, layers.pooled(at_least_float32(f_t), predicted.shape[2:])).mean()

    def formula(self) -> str:
        return "MSE(r(f_s), f_t)"


def regressor(f_s: Tensor, f_t: Tensor) -> nn.Sequential:
    """Return a convolution from the student's map size to the teacher's, BatchNorm and ReLU.

    If the student's map is twice as large, it is 3×3 with stride 2; if half as large, transposed 4×4 with stride 2;
    if otherwise larger or equal, its kernel without padding makes up for the difference (1×1 for equal sizes). CRD's
    code refuses all other ratios; here, as in its later version (SemCKD's ConvReg), a 3×3 convolution keeps the
    student's size, and the teacher's map is pooled to it.
    """
    from_, to = f_s.shape[1], f_t.shape[1]
    (h_s, w_s), (h_t, w_t) = f_s.shape[2:], f_t.shape[2:]
    convolution: nn.Module
    if (h_s, w_s) == (2 * h_t, 2 * w_t):
        convolution = nn.Conv2d(from_, to, 3, stride=2, padding=1)
    elif (2 * h_s, 2 * w_s) == (h_t, w_t):
        convolution = nn.ConvTranspose2d(from_, to, 4, stride=2, padding=1)
    elif h_s >= h_t and w_s >= w_t:
        convolution = nn.Conv2d(from_, to, (1 + h_s - h_t, 1 + w_s - w_t))
    else:
        convolution = nn.Conv2d(from_, to, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(to), nn.ReLU())
