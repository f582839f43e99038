"""However many processes share a training, its numbers are those of one process, but for the order of sums."""

import pytest

from tests.distributed.conftest import SMALL, assert_alike

# Of the kinds of terms there are: on logits and on maps, relations between the samples of a batch, a bank with
# draws of its own, trained projections, BatchNorm among them, and two views of each image.
TERMS = "kd,rkd,sp,pkt,cc,crd,fitnet,vid,dist,sem_ckd,review_kd,mlkd"


def test_two_processes_train_as_one_does_whatever_the_terms(desks):
    words = ["distill", f"loss=[{TERMS}]", *SMALL, "recipe.lr=0.001", "loss.crd.negatives=50"]
    words += ["recipe.ema_decay=0.9", "recipe.clip_norm=5", "recipe.weight_decay=0.01"]
    for desk, ranks in zip(desks, (1, 2), strict=True):
        output = desk.type(ranks, *words)
    assert "2 processes train together: each batch of 33 images is split 16 + 17" in output
    printed = " ".join(output.split())
    assert "+ 0.9·Σ_T [T²·KL + batch + class](p_t, p_s; T=2, 3, 4, 5, 6; weak and strong view" in printed
    assert "sees two views of each image, the second also with randaugment, erasing; a baseline sees only" in printed
    assert_alike(*desks, tolerance=3e-5)  # KL of nearly equal distributions; all but kd's and pkt's keep to 1e-6


@pytest.mark.slow
def test_two_processes_train_as_one_does_with_each_term_alone(desks):
    """To what another number of threads changes as well: KL of two nearly equal distributions has few good digits."""
    for desk, ranks in zip(desks, (1, 2), strict=True):
        desk.type(ranks, "distill", "-m", f"loss={TERMS},ctkd", *SMALL, "recipe.lr=0.01")
    assert_alike(*desks, tolerance=1e-3, ties=0.01)


def test_peers_teach_each_other_across_processes(desks):
    words = ["distill", "loss=dml", "students=[mlp,digits_student]", "students.mlp.hidden=[24]", *SMALL]
    words = [word for word in words if not word.startswith("teacher")]
    for desk, ranks in zip(desks, (1, 2), strict=True):
        desk.type(ranks, *words, "recipe.lr=0.01")
    assert_alike(*desks)
    assert sum("peer" in name for name in desks[0].results()) == 2


def test_several_students_and_teachers_and_a_term_that_leaves_the_last_layer_alone(desks):
    """Without a term on logits the last layer has no gradient, and so no weight decay either: in no process."""
    words = [
        "distill",
        "loss=pkt",
        "loss.ce.weight=0",
        "teachers=[mlp,digits_student]",
        "students=[mlp,digits_student]",
    ]
    words += ["teachers.mlp.hidden=[48]", *(word for word in SMALL if "hidden" not in word and word != "teacher=mlp")]
    for desk, ranks in zip(desks, (1, 3), strict=True):
        desk.type(ranks, *words, "recipe.lr=0.01", "recipe.weight_decay=0.1", "loss.pkt.weight=1")
    assert_alike(*desks)
