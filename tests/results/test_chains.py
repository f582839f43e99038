"""Students taught through assistants, and born-again generations; numbers by hand."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.write import data
from tests.results.given import LABELS, LOST, artifact, cells, column, noisy, notes_of, record, seeds_of

SEEDS = range(3)


@pytest.fixture
def chains(tmp_path):
    folders = [
        artifact(tmp_path, "teacher", right=96),
        artifact(tmp_path, "assistant", right=93, model="larger"),
        artifact(tmp_path, "assistant", right=91, model="large"),
        *seeds_of(tmp_path, "baseline", [80, 81, 82]),
        *seeds_of(tmp_path, "student", [83, 83, 83], x="direct"),
        *seeds_of(tmp_path, "student", [84, 85, 86]),
    ]
    cast = [("teacher",), ("assistant",), ("assistant",)]
    cast += [("baseline",)] * 3 + [("direct", "direct")] * 3 + [("student",)] * 3
    shuffled = [0, 1, 2, 9, 3, 6, 10, 4, 7, 11, 5, 8]  # seed by seed, as a run lists them
    folders, cast = ([these[i] for i in shuffled] for these in (folders, cast))
    return Comparison(folders, record(folders, cast=cast))


def test_the_links_stand_between_teacher_and_students(chains):
    assert [(row["role"], row["model"]) for row in cells(chains)] == [
        ("teacher", "big"), ("assistant", "larger"), ("assistant", "large"),
        ("baseline", "small"), ("direct", "small"), ("student", "small"),
    ]  # fmt: skip


def test_both_ways_are_held_against_the_baseline_and_the_teacher(chains):
    assert column(chains, "Δ base") == ["+15.00", "+12.00", "+10.00", "–", "+2.00", "+4.00"]
    assert column(chains, "gap %") == ["–", "–", "–", "–", "13", "27"]
    assert chains.lanes[0].gap == pytest.approx(4 / 15)
    assert all(chains.measured(row, "agreement") is not None for row in chains.rows[1:])


def test_the_detour_is_held_against_the_direct_way(chains):
    t = stats.ttest_1samp([1, 2, 3], 0).confidence_interval()
    sentence = f"through the assistants − direct, paired by seed: +2.00, 95% t-interval [{t.low:+.2f}, "
    assert sentence + f"{t.high:+.2f}]; exact sign-flip p = 0.250" in notes_of(chains)
    direct = stats.ttest_1samp([3, 2, 1], 0).confidence_interval()
    assert (
        f"also against the baseline, paired by seed: direct +2.00, 95% t-interval [{direct.low:+.2f}, "
        f"{direct.high:+.2f}]; exact sign-flip p = 0.250"
    ) in notes_of(chains)
    assert data(chains)["lanes"][0]["against_direct"]["mean"] == pytest.approx(0.02)


def test_teacher_and_assistants_are_fixed(chains):
    assert "one teacher and one of each assistant for all seeds: the intervals do not include their" in notes_of(chains)


def test_two_links_of_one_network_keep_their_rows(tmp_path):
    folders = [artifact(tmp_path, "assistant", right=right) for right in (90, 91)]
    comparison = Comparison(folders, record(folders))
    assert column(comparison, "test %") == ["90.00", "91.00"]
    assert list(comparison.names.values()) == ["assistant small", "assistant small #2"]


def test_one_seed_shows_the_difference_and_claims_nothing(tmp_path):
    folders = [artifact(tmp_path, "baseline", right=80)]
    folders += [artifact(tmp_path, "student", right=r) for r in (83, 84)]
    comparison = Comparison(folders, record(folders, cast=[("baseline",), ("direct",), ("student",)]))
    assert "through the assistants − direct, paired by seed: +1.00, one seed" in notes_of(comparison)


def child(k, seed):
    return noisy(2 + k / 10, 10 * k + seed)


def generations(store, *, count=3, diverged=(), teacher="other"):
    """Compare born-again networks; what would have learned from a diverged one was never trained."""
    folders = [artifact(store, "teacher", right=90, model=teacher), *seeds_of(store, "baseline", [80, 81, 82])]
    cast = [("teacher",)] + [("baseline",)] * 3
    for k in range(1, count + 1):
        for seed in SEEDS:
            if any((before, seed) in diverged for before in range(k)):
                continue
            how = LOST if (k, seed) in diverged else {"z": child(k, seed)}
            folders.append(artifact(store, "student", seed, x=k, **how))
            cast.append(("student" if k == count else "generation", f"generation {k}"))
    return Comparison(folders, record(folders, cast=cast))


def test_they_stand_in_order_before_their_ensemble(tmp_path):
    assert [(row["role"], row["model"]) for row in cells(generations(tmp_path))] == [
        ("teacher", "other"), ("baseline", "small"), ("generation 1", "small"), ("generation 2", "small"),
        ("generation 3", "small"), ("ensemble", "3 generations"),
    ]  # fmt: skip


def test_the_ensemble_averages_the_generations_of_each_seed(tmp_path):
    comparison = generations(tmp_path)
    together = []
    for seed in SEEDS:
        p = sum(softmax(child(k, seed).astype(float), axis=1) for k in (1, 2, 3)) / 3
        together.append((p.argmax(1) == LABELS).mean())
    summary = comparison.rows[-1].summary("test")
    assert (summary.mean, summary.std, summary.n) == (
        pytest.approx(np.mean(together)), pytest.approx(np.std(together, ddof=1)), 3
    )  # fmt: skip
    assert cells(comparison)[-1]["test %"] == f"{100 * np.mean(together):.2f} ± {100 * np.std(together, ddof=1):.2f}"


def test_every_generation_and_the_ensemble_are_paired_with_the_baseline(tmp_path):
    comparison = generations(tmp_path)
    for row, shown in zip(comparison.rows[2:], column(comparison, "Δ base")[2:], strict=True):
        differences = [row.finished[s].point("test") - (0.80 + s / 100) for s in SEEDS]
        assert shown == f"{100 * np.mean(differences):+.2f}"
        assert comparison.lanes[0].difference(row).mean == pytest.approx(np.mean(differences))
    (note,) = [note for note in notes_of(comparison).splitlines() if note.startswith("also against the baseline")]
    assert [word for word in ("generation 1 ", "generation 2 ", "generation 3", "ensemble ") if word in note] == [
        "generation 1 ", "generation 2 ", "ensemble "
    ]  # fmt: skip


def test_the_verdict_is_about_the_last_one_which_started_from_other_weights(tmp_path):
    comparison = generations(tmp_path)
    assert comparison.verdict().startswith("generation 3: ")
    assert "generation 3: Δ base, paired by seed (same batches): " in notes_of(comparison)
    assert "ensemble: mean of the generations' probabilities at T=1, of each seed" in notes_of(comparison)


def test_fidelity_is_to_the_teacher(tmp_path):
    comparison = generations(tmp_path)
    agreed = comparison.measured(comparison.rows[2], "agreement")
    teacher = np.where(np.arange(100) < 90, LABELS, (LABELS + 1) % 4)
    assert agreed.mean == pytest.approx(np.mean([(child(1, s).argmax(1) == teacher).mean() for s in SEEDS]))
    assert comparison.measured(comparison.rows[0], "agreement") is None


def test_towards_a_teacher_that_is_the_same_network_there_is_no_gap(tmp_path):
    comparison = generations(tmp_path, teacher="small")
    assert comparison.lanes[0].gap is None and set(column(comparison, "gap %")) == {"–"}
    assert "the teacher is the baseline's network, so the gap between them is training noise" in notes_of(comparison)
    assert generations(tmp_path / "b").lanes[0].gap is not None


def test_where_one_was_lost_what_learned_from_it_and_the_ensemble_are_missing(tmp_path):
    comparison = generations(tmp_path, diverged=[(1, 1)])
    assert column(comparison, "n")[1:] == ["3", "2 of 3", "2", "2", "2 of 3"]
    assert "(2 of 3, 1 diverged)" in comparison.verdict()
    assert "ensemble: 2 of 3, 1 diverged: seed 1: one of its 3 networks is missing" in notes_of(comparison)


def test_where_the_first_generation_was_lost_in_every_seed_all_is_said_there_is(tmp_path):
    comparison = generations(tmp_path, diverged=[(1, seed) for seed in SEEDS])
    assert column(comparison, "role") == ["teacher", "baseline", "generation 1"]
    assert comparison.verdict() == (
        "teacher other: test accuracy 90.00%. baseline small: test accuracy 81.00 ± 1.00%. "
        "generation 1 small: no results, 3 diverged."
    )


def test_one_generation_has_no_ensemble(tmp_path):
    assert column(generations(tmp_path, count=1), "role") == ["teacher", "baseline", "generation 1"]
