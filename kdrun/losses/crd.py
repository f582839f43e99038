"""Contrastive representation distillation (Tian, Krishnan & Isola, "CRD", ICLR 2020)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdrun.data.batches import Batch
from kdrun.losses.base import Setting
from kdrun.losses.layers import VectorTerm
from kdrun.models.base import Outputs

__all__ = ["CRD"]

EPS = 1e-7  # the published code's, inside the logarithms
PAPERS = 16384  # number of negatives in the paper, for the 50,000 images of CIFAR-100
DENSE = 8  # up to this ratio of images to drawn rows, one product with the whole bank is faster than gathering rows


def contrast(log_p: Tensor, num_samples: int) -> Tensor:
    """Return −log h(positive) − Σ log(1 − h(negative)) of each sample, (N,), from log P, (N, 1 + m), positive first.

    Equation 18 of the paper, noise-contrastive estimation: h = P / (P + m·Pn), with m negatives from the noise
    distribution Pn = 1 / num_samples. As published, 1e-7 is added to both denominators. P is given as its logarithm,
    so that it does not overflow at any temperature.
    """
    m = log_p.shape[1] - 1
    noise = m / num_samples
    odds = log_p - math.log(noise + EPS)  # h = sigmoid(odds)
    positive = softplus(-odds[:, 0])
    negatives = softplus(odds[:, 1:]).sum(1) + m * math.log1p(EPS / noise)  # −Σ log(noise / (P + noise + EPS))
    return positive + negatives


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + eˣ), exact in float64 too: torch's default returns x from 20 on."""
    return F.softplus(x, threshold=50)


def dense(anchors: Tensor, bank: Tensor, drawn: Tensor) -> Tensor:
    """Return the inner products, (N, K), of anchors (N, d) with the drawn rows (N, K) of a bank (n, d).

    It multiplies by the whole bank and then selects numbers, instead of selecting rows first. It multiplies by a
    copy, because the gradient needs the present rows, and the bank is updated before the backward pass.
    """
    return (anchors @ bank.clone().T).gather(1, drawn)


def gathered(anchors: Tensor, bank: Tensor, drawn: Tensor) -> Tensor:
    """Return the same as `dense`, by reading the drawn rows, (N, K, d): for banks much larger than a draw."""
    return torch.bmm(bank[drawn], anchors[:, :, None])[:, :, 0]


class CRD(VectorTerm):
    """NCE(e_s → bank_t) + NCE(e_t → bank_s): the student's vector of an image is to match the teacher's vector of it.

    A Linear layer for each network maps its vectors, (N, d_s) or (N, d_t), to `feature_dim` numbers, which are
    normalised to length 1: e_s and e_t. Two banks store both for every image of the training set. Each image is
    compared with its own row of the other network's bank, the positive, and with the rows of `negatives` images of
    other classes (for an unlabelled image: of any other images), drawn with replacement for every batch.
    `negatives=None` is the paper's 16,384 (of 50,000 images), but at most half of a smaller set, where more would
    repeat images often. P = exp(cosine / tau) / Z, where the first batch fixes Z so that the mean of P is
    1 / num_samples. After the comparison the batch's rows move by 1 − `momentum` to the new vectors, and are
    normalised to length 1.

    This is the published code with its `exact` positives, except for the draw: there the data loader draws on the
    CPU, without replacement if the other classes are large enough.
    Raise ValueError if a number is out of range, a network does not have a layer, or an image of the training set
    has no negative.
    """

    banks = ("student_bank", "teacher_bank", "log_z", "estimated")
    student_bank: Tensor
    teacher_bank: Tensor
    log_z: Tensor
    estimated: Tensor
    order: Tensor
    own_start: Tensor
    own_size: Tensor

    def __init__(
        self,
        feature_dim: int = 128,
        negatives: int | None = None,
        tau: float = 0.07,
        momentum: float = 0.5,
        student_layer: str | None = None,
        teacher_layer: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer)
        for name, number in {"feature_dim": feature_dim, "negatives": negatives}.items():
            if number is not None and number < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {number}")
        if not (math.isfinite(tau) and tau > 0):
            raise ValueError(f"tau must be a finite number above 0, got {tau}; 0.07 is usual")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {momentum}; 0.5 is usual")
        self.feature_dim, self.negatives = feature_dim, negatives
        self.tau, self.momentum = float(tau), float(momentum)

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        f_s, f_t = self.vectors(student, teacher)
        self.embed_student = nn.Linear(f_s.shape[1], self.feature_dim)
        self.embed_teacher = nn.Linear(f_t.shape[1], self.feature_dim)
        bound = math.sqrt(3 / self.feature_dim)  # as published: rows of mean square length 1
        for bank in ("student_bank", "teacher_bank"):
            drawn = torch.empty(setting.num_samples, self.feature_dim).uniform_(-bound, bound)
            self.register_buffer(bank, drawn)
        self.register_buffer("log_z", torch.zeros(2))  # of the student's and the teacher's comparisons
        self.register_buffer("estimated", torch.tensor(False))
        for name, places in blocks(setting.labels).items():
            self.register_buffer(name, places, persistent=False)  # derived from the labels, so not saved
        self.count = self.drawn(setting)
        self.similarities = dense if self._dense(setting) else gathered

    def memory(self, student: Outputs, teacher: Outputs, setting: Setting) -> int:
        """Return the bytes of the banks, of the other buffers, and of the tensors of one step.

        The tensors of one step are the draw and, for each of the two banks, the drawn similarities and either the
        drawn rows or a copy of the bank with all similarities.
        """
        n, drawn = setting.num_samples, setting.batch_size * (1 + self.drawn(setting))
        held = 2 * 4 * n * self.feature_dim + 2 * 4 + 1 + 3 * 8 * n
        rows = n * self.feature_dim + setting.batch_size * n if self._dense(setting) else drawn * self.feature_dim
        return held + 2 * 4 * (drawn + rows) + 8 * drawn

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        f_s, f_t = self.vectors(student, teacher)
        e_s, e_t = F.normalize(self.embed_student(f_s)), F.normalize(self.embed_teacher(f_t))
        indices = batch.indices.to(self.order.device)
        drawn = torch.cat([indices[:, None], self.draw(indices)], dim=1)
        scores = [
            self.similarities(e_s / self.tau, self.teacher_bank, drawn),
            self.similarities(e_t / self.tau, self.student_bank, drawn),
        ]
        log_z = self._log_z(scores)
        if self.training:
            remember(self.student_bank, indices, e_s, self.momentum)
            remember(self.teacher_bank, indices, e_t, self.momentum)
        n = len(self.order)
        return contrast(scores[0] - log_z[0], n).mean() + contrast(scores[1] - log_z[1], n).mean()

    @torch.no_grad()
    def draw(self, indices: Tensor) -> Tensor:
        """Return indices of negatives, (N, negatives), drawn uniformly from the images of other classes.

        A number below the total size of the other classes is drawn from the device's default generator, and counted
        in the order of classes, without the sample's own class.
        """
        start, size = self.own_start[indices, None], self.own_size[indices, None]
        number = torch.randint(2**62, (len(indices), self.count), device=self.order.device)
        number %= len(self.order) - size
        return self.order[torch.where(number < start, number, number + size)]

    def formula(self) -> str:
        drawn = f"K={self.negatives}" if self.negatives else f"K≤{PAPERS}"
        numbers = f"{drawn}, τ={self.tau:g}, m={self.momentum:g}, d={self.feature_dim}"
        return f"CRD(e_t, e_s; {numbers})"

    @torch.no_grad()
    def _log_z(self, scores: list[Tensor]) -> Tensor:
        """Return log Z of both comparisons, (2,): estimated from the first batch that is trained on, then kept.

        The device chooses between the two, so that the host does not wait for it.
        """
        n = len(self.order)
        fresh = torch.stack([s.flatten().logsumexp(0) - math.log(s.numel()) + math.log(n) for s in scores])
        log_z = torch.where(self.estimated, self.log_z, fresh)
        if self.training:
            self.log_z.copy_(log_z)
            self.estimated.fill_(True)
        return log_z

    def drawn(self, setting: Setting) -> int:
        """Return the number of negatives that each image is compared with."""
        return self.negatives or max(1, min(PAPERS, setting.num_samples // 2))

    def _dense(self, setting: Setting) -> bool:
        return setting.num_samples <= DENSE * (1 + self.drawn(setting))


def blocks(labels: Tensor) -> dict[str, Tensor]:
    """Return the images' indices sorted by class, and the start in that order and the size of each image's class.

    Each is (n,). An unlabelled sample (−1) is a class of its own. Raise ValueError if there is a single class.
    """
    n = len(labels)
    order = labels.argsort(stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(n))
    of_class = labels + 1  # the unlabelled come first
    sizes = of_class.bincount()
    starts = sizes.cumsum(0) - sizes
    unlabelled = labels < 0
    own_start = torch.where(unlabelled, place, starts[of_class])
    own_size = torch.where(unlabelled, 1, sizes[of_class])
    if bool((own_size == n).any()):
        raise ValueError(
            f"all {n} training images are of one class, and crd contrasts an image with those of other classes: "
            "train on two classes or more, or choose another loss"
        )
    return {"order": order, "own_start": own_start, "own_size": own_size}


@torch.no_grad()
def remember(bank: Tensor, indices: Tensor, vectors: Tensor, momentum: float) -> None:
    """Update a batch's rows from its vectors (N, d), in place: momentum·old + (1 − momentum)·new, of length 1."""
    bank.index_copy_(0, indices, F.normalize(momentum * bank[indices] + (1 - momentum) * vectors))
