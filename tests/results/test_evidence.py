"""The exact words of the verdict."""

import pytest

from kdrun.results import evidence, statistics
from kdrun.results.statistics import Paired, SingleRun

NEED = "with 3 seeds no exact test can go below p = 0.25: type seeds=6 or more."
NONE = "No significant difference: "
LEAVES = "the interval leaves out 0, but " + NEED
ONE = SingleRun(0.625, 1, 3, -0.0056, 0.0167)


@pytest.mark.parametrize(
    ("difference", "more", "sentence"),
    [
        (
            Paired(0.012, 0.004, 0.02, 0.03125, 6),
            {"gap": 0.41, "asked": 6},
            "Gain: +1.20 points of test accuracy over the baseline (95% [+0.40, +2.00], p = 0.031, n = 6), "
            "41% of the teacher–baseline gap closed.",
        ),
        (
            Paired(-0.012, -0.02, -0.004, 0.03125, 6),
            {"gap": None, "asked": 6},
            "Loss: -1.20 points of test accuracy over the baseline (95% [-2.00, -0.40], p = 0.031, n = 6).",
        ),
        (
            Paired(0.012, -0.001, 0.025, 0.0625, 6),
            {"gap": 0.41, "asked": 6},
            NONE + "+1.20 points of test accuracy over the baseline (95% [-0.10, +2.50], p = 0.062, n = 6), "
            "41% of the teacher–baseline gap closed.",
        ),
        (  # the interval alone is not enough
            Paired(0.012, 0.001, 0.023, 0.0625, 6),
            {"gap": None, "asked": 6},
            NONE + "+1.20 points of test accuracy over the baseline (95% [+0.10, +2.30], p = 0.062, n = 6).",
        ),
        (  # nor the p alone
            Paired(0.012, -0.001, 0.025, 0.04, 7),
            {"gap": None, "asked": 7},
            NONE + "+1.20 points of test accuracy over the baseline (95% [-0.10, +2.50], p = 0.040, n = 7).",
        ),
        (
            Paired(0.01, None, None, 0.03125, 6),
            {"gap": None, "asked": 6},
            "Gain: +1.00 points of test accuracy over the baseline (all differences equal, p = 0.031, n = 6).",
        ),
        (
            Paired(0.0, None, None, 1.0, 6),
            {"gap": None, "asked": 6},
            NONE + "+0.00 points of test accuracy over the baseline (all differences equal, p = 1.000, n = 6).",
        ),
        (
            Paired(0.012, 0.004, 0.02, 0.25, 3),
            {"gap": None, "asked": 3},
            "Indicative gain: +1.20 points of test accuracy over the baseline (95% [+0.40, +2.00], p = 0.250, n = 3); "
            + LEAVES,
        ),
        (
            Paired(-0.012, -0.02, -0.004, 0.25, 3),
            {"gap": None, "asked": 3},
            "Indicative loss: -1.20 points of test accuracy over the baseline (95% [-2.00, -0.40], p = 0.250, n = 3); "
            + LEAVES,
        ),
        (
            Paired(0.012, -0.004, 0.028, 0.25, 3),
            {"gap": 0.9, "asked": 3},
            NONE + "+1.20 points of test accuracy over the baseline (95% [-0.40, +2.80], p = 0.250, n = 3), "
            "90% of the teacher–baseline gap closed; " + NEED,
        ),
        (
            Paired(0.012, 0.004, 0.02, 0.015625, 7),
            {"gap": None, "asked": 8, "lost": "1 diverged"},
            "Indicative gain: +1.20 points of test accuracy over the baseline (95% [+0.40, +2.00], p = 0.016, n = 7) "
            "(7 of 8, 1 diverged); indicative at most, since a seed was lost.",
        ),
        (
            Paired(0.01, None, None, None, 1),
            {"gap": 0.5, "asked": 1, "single": ONE},
            "Not tested: +1.00 points of test accuracy over the baseline, 50% of the teacher–baseline gap closed; one "
            "seed says nothing about training noise; test-set noise for these two models alone: "
            "95% [-0.56, +1.67], McNemar p = 0.625.",
        ),
        (
            Paired(0.01, None, None, None, 1),
            {"gap": None, "asked": 2, "lost": "1 oom"},
            "Not tested: +1.00 points of test accuracy over the baseline (1 of 2, 1 oom); one seed says nothing about "
            "training noise.",
        ),
        (
            None,
            {"gap": None, "asked": 2, "lost": "2 diverged"},
            "Not tested: no pair of baseline and student was finished (0 of 2, 2 diverged).",
        ),
        (
            None,
            {"gap": None, "asked": 1},
            "Not tested: no pair of baseline and student was finished.",
        ),
    ],
)
def test_the_verdict_says_what_the_numbers_show(difference, more, sentence):
    assert evidence.verdict(difference, **more) == sentence


def test_small_p_values_keep_their_digits():
    sentence = [evidence.p_value(p) for p in (0.25, 0.03125, 2 / 2**10, 0.00005)]
    assert sentence == ["= 0.250", "= 0.031", "= 0.0020", "< 0.0001"]


def test_a_student_that_falls_behind_has_not_closed_a_negative_share():
    sentence = evidence.verdict(statistics.paired([-0.01]), gap=-0.14, asked=1)
    assert "-1.00 points of test accuracy over the baseline, the gap to the teacher grew by 14%;" in sentence


@pytest.mark.parametrize("word", [*evidence.WORDS, "Not shown"])  # the last is that of older versions
def test_a_verdict_is_corrected_in_the_words_of_any_version_and_behind_a_finding(word):
    judged = evidence.Judgement(evidence.Evidence.NOT_SHOWN, True)
    before = f"Never shown class 3, the student gets 95% right. {word}: +1.20 points; a Gain: as a word."
    after = evidence.corrected(before, judged, 0.25, 4)
    assert after == before.replace(f"{word}:", f"{judged.word}, corrected for 4 tests (p Holm = 0.250):", 1)
