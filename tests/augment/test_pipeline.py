import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torchvision.transforms import v2

from kdrun.augment import Pipeline, build
from kdrun.augment.base import Mix, Position
from kdrun.augment.crop_flip import CropFlip
from kdrun.augment.cutmix import Cutmix
from kdrun.augment.mixup import Mixup
from kdrun.augment.pipeline import mixed
from kdrun.data.decoders import Workers
from kdrun.data.sets import ImageSet
from kdrun.losses.ce import CE
from kdrun.models.base import Outputs
from tests.data.given import MEAN, batches_of, image_set, load_folder, tree

MIXING = Pipeline([CropFlip(2, True)], [Mixup(0.4), Cutmix(1.0, 0.5)])
VIEWS = Pipeline([CropFlip(2, True)], [Mixup()], views=3, views_seed=7)


def position(count, epoch=0):
    return Position((1, 0, epoch), torch.arange(count))


def constant(count, weight=1.0, box=(0, 0, 0, 0), share=None):
    edges = (torch.full((count,), edge) for edge in box)
    return Mix(torch.full((count,), weight), *edges, torch.full((count,), weight if share is None else share))


def test_mixed_images_and_the_loss_of_their_labels_are_those_of_torchvision_and_soft_targets():
    images = image_set(6, size=(9, 12)).images.float()
    labels = torch.tensor([0, 3, 1, 2, 3, 0])
    box = (2, 3, 7, 10)  # top, left, bottom, right
    area = 1 - 5 * 7 / (9 * 12)
    for transform, mix, params in [
        (v2.MixUp(num_classes=4), constant(6, 0.3), {"lam": 0.3}),
        (v2.CutMix(num_classes=4), constant(6, 1.0, box, area), {"box": (3, 2, 10, 7), "lam_adjusted": area}),
    ]:
        theirs = transform.transform(images, {"labels": labels, "batch_size": 6, **params})
        made = mixed(torch.cat([images, images.roll(1, 0)]), mix)
        assert torch.allclose(made, theirs, rtol=1e-6, atol=1e-4)
        share = params.get("lam", area)
        onehot = F.one_hot(labels, 4)
        targets = share * onehot + (1 - share) * onehot.roll(1, 0)
        logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        batch = next(batches_of(image_set(6), batch_size=6).epoch(0))._replace(
            labels=labels, partner_labels=labels.roll(1), share=torch.full((6,), share, dtype=torch.float64)
        )
        outputs = Outputs(logits, {}, {}, logits[:, :0])
        for smoothing in (0.0, 0.1):
            usual = F.cross_entropy(logits, targets.double(), label_smoothing=smoothing)
            assert CE(smoothing)(outputs, None, batch).item() == pytest.approx(usual.item(), rel=1e-7)
        assert batch.dominant.tolist() == (labels if share >= 0.5 else labels.roll(1)).tolist()


def test_images_without_a_label_and_class_weights_count_as_in_the_mean_of_both_labels():
    term = CE(class_weights="balanced")
    term.weights = torch.tensor([2.0, 0.5, 1.0])
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.5, 1.5, -1.0], [1.0, 1.0, 0.0]])
    batch = next(batches_of(image_set(3), batch_size=3).epoch(0))._replace(
        labels=torch.tensor([0, 1, -1]), partner_labels=torch.tensor([1, 2, 0]), share=torch.tensor([0.75, 0.4, 1.0])
    )
    log_p = logits.log_softmax(1)
    own = 0.75 * 2.0 * -log_p[0, 0] + 0.25 * 0.5 * -log_p[0, 1] + 0.4 * 0.5 * -log_p[1, 1] + 0.6 * 1.0 * -log_p[1, 2]
    total = 0.75 * 2.0 + 0.25 * 0.5 + 0.4 * 0.5 + 0.6 * 1.0
    value = term(Outputs(logits, {}, {}, logits[:, :0]), None, batch)
    assert value.item() == pytest.approx(own.item() / total, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_shares_partners_and_boxes_have_their_distributions(alpha):
    count = 40_000
    mix = Mixup(alpha).draw(position(count), (32, 32))
    assert stats.kstest(mix.share.double(), stats.beta(alpha, alpha).cdf).pvalue > 0.001
    half = Mixup(alpha, 0.5).draw(position(count), (32, 32))
    assert stats.binomtest(int((half.share == 1).sum()), count, 0.5).pvalue > 0.001
    look = Pipeline([], [Mixup(alpha)]).look(0, 0, torch.arange(count), (32, 32), torch.ones(count, dtype=torch.bool))
    counts = (look.partners // 1000).bincount(minlength=40)
    assert stats.chisquare(counts).pvalue > 0.001
    boxes = Cutmix(alpha).draw(position(count), (30, 40))
    # the centre is uniform and sides are √(1 − λ) of the image, cut at its border: as torchvision draws them
    torch.manual_seed(0)
    lam = torch.distributions.Beta(alpha, alpha).sample((count,))
    x, y = torch.randint(40, (count,)), torch.randint(30, (count,))
    r = 0.5 * (1 - lam).sqrt()
    w, h = (r * 40).int(), (r * 30).int()
    area = ((x + w).clamp(max=40) - (x - w).clamp(min=0)) * ((y + h).clamp(max=30) - (y - h).clamp(min=0))
    assert stats.ks_2samp(boxes.share, 1 - area / 1200).pvalue > 0.001
    assert torch.equal(boxes.share, 1 - ((boxes.bottom - boxes.top) * (boxes.right - boxes.left) / 1200))


@pytest.mark.parametrize("augmentation", [MIXING, VIEWS])
def test_a_look_is_a_function_of_seed_epoch_and_index_alone(augmentation, tmp_path):
    images = image_set(70, size=(8, 8))

    def looks(batch_size=16, start=0, epoch=2, ranks=1, **changed):
        every = [
            batches_of(images, augmentation=augmentation, batch_size=batch_size, ranks=ranks, rank=rank, **changed)
            for rank in range(ranks)
        ]
        seen = [batch for one in every for batch in one.epoch(epoch, start)]
        order = torch.cat([batch.indices for batch in seen]).argsort(stable=True)
        return [torch.cat([getattr(b, name) for b in seen])[order] for name in ("images", "share", "partner_labels")]

    whole = looks()
    assert all(torch.equal(a, b) for a, b in zip(whole, looks(7), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole, looks(35, ranks=2), strict=True))
    assert len(looks(start=2)[0]) == 38
    assert not torch.equal(whole[0], looks(epoch=3)[0]) and not torch.equal(whole[0], looks(seed=1)[0])
    archive = tree(tmp_path / "images", count=12)
    resident, streamed = (load_folder(archive, max_resident_gb=gb) for gb in (1.0, 0.0))
    a, b = (
        batches_of(part.train, augmentation=augmentation, batch_size=5, workers=Workers(0)).epoch(1)
        for part in (resident, streamed)
    )
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.images, y.images) and torch.equal(x.partner_labels, y.partner_labels)


def test_an_image_comes_in_its_views_alone_whatever_the_seed_of_the_training():
    images = image_set(30, size=(8, 8))
    seen: dict[int, set[bytes]] = {index: set() for index in range(30)}
    for seed in (0, 1):
        batches = batches_of(images, augmentation=VIEWS, batch_size=10, seed=seed)
        for epoch in range(10):
            forms = batches.shown(epoch)
            rendered = torch.cat(list(batches.rendered(forms, batches.order(epoch))))
            for batch, same in zip(batches.epoch(epoch), rendered.split(10), strict=True):
                assert torch.equal(batch.images, same)
                for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
                    seen[index].add(image.numpy().tobytes())
    assert all(len(views) == 3 for views in seen.values())
    other = Pipeline([CropFlip(2, True)], [Mixup()], views=3, views_seed=8)
    fresh = next(batches_of(images, augmentation=other, batch_size=30).epoch(0))
    assert not any(i.numpy().tobytes() in seen[n] for n, i in zip(fresh.indices.tolist(), fresh.images, strict=True))


def test_images_without_a_label_are_mixed_only_where_nothing_reads_labels():
    some = image_set(40, size=(8, 8))
    labels = torch.where(torch.arange(40) < 25, some.labels, -1)
    images = ImageSet(some.images, labels)
    settings = {"mixup": {"use": "mixup.Mixup"}}
    for labelled_only in (True, False):
        augmentation = build(settings, mean=MEAN, size=(8, 8), labelled_only=labelled_only)
        batch = next(batches_of(images, augmentation=augmentation, batch_size=40).epoch(0))
        assert batch.partner_labels is not None and batch.share is not None
        unlabelled = batch.labels < 0
        if labelled_only:
            assert (batch.partner_labels >= 0).all() and (batch.share[unlabelled] == 1).all()
            plain = next(batches_of(images, augmentation=Pipeline(), batch_size=40).epoch(0))
            assert torch.equal(batch.images[unlabelled], plain.images[unlabelled])
        else:
            assert (batch.partner_labels < 0).any() and (batch.share[unlabelled] < 1).all()
        assert (batch.share[~unlabelled] < 1).all()
