"""What papers report of a pair stands beside a run that keeps to their settings, and beside no other."""

import json

import pytest

from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.table import comparison_table
from kdrun.results.comparison.write import write_comparison
from tests.results.given import artifact, column, notes_of, record, trio

PAPER = [
    {"source": "Tian et al. 2020 (CRD), Table 1", "epoch": "last",
     "top1": {"teacher": 97.0, "baseline": 90.5, "kd": 92.5}},
    {"source": "their logs", "epoch": "best", "top1": {"kd": 93.1, "dkd": 94.2}},
    {"source": "their logs", "epoch": "last", "top1": {"kd": 92.9}},
    {"source": "Huang et al. 2022", "epoch": None, "top1": {"dist": 93.3}},
]  # fmt: skip
BY_CRD = "reported %, last epoch, by Tian et al. 2020 (CRD), Table 1: teacher 97.00, baseline 90.50"


@pytest.fixture
def made(tmp_path):
    def make(*typed, loss="kd", protocol="paper", source=None, teacher=97):
        folders = trio(tmp_path, [93, 94], [90, 91], teacher=teacher, protocol=protocol)
        config = {"recipe": {"protocol": protocol}, "reported": PAPER, "teacher": {"from": source}}
        known = record(folders, overrides=["experiment=cifar100/a_b", *typed], config=config)
        known["choices"]["loss"] = [loss] if isinstance(loss, str) else loss
        return Comparison(folders, known)

    return make


def test_each_row_has_the_reported_number_of_the_last_epoch_beside_its_own_and_the_notes_have_all(made):
    comparison = made("loss=kd", "seeds=2")
    assert column(comparison, "reported %") == ["97.00 last", "90.50 last", "92.50 last"]
    notes = comparison_table(comparison).notes
    assert BY_CRD + ", student 92.50" in notes
    assert "reported %, best epoch on test, by their logs: student 93.10" in notes
    assert "reported %, last epoch, by their logs: student 92.90" in notes


@pytest.mark.parametrize(
    ("loss", "cell", "note"),
    [
        ("dkd", "94.20 best", "reported %, best epoch on test, by their logs: student 94.20"),
        ("dist", "93.30", "reported %, epoch not stated, by Huang et al. 2022: student 93.30"),
        ("vid", "–", BY_CRD),
        (["kd", "dkd"], "–", BY_CRD),  # of a mixture nobody reports anything
    ],
)
def test_it_is_that_of_the_chosen_loss_with_its_epoch(made, loss, cell, note):
    comparison = made(loss=loss)
    assert column(comparison, "reported %")[2] == cell and note in comparison_table(comparison).notes


@pytest.mark.parametrize(
    "word", ["recipe.epochs=10", "recipe.batch_size=128", "recipe.lr=0.1", "teacher.recipe.epochs=3", "student=vgg8",
             "loss.kd.weight=1", "T=8", "alpha=0.5", "dataset.flip=false", "transfer.fraction=0.5", "budget=quick",
             "teachers=[a,b]", "+loss.kd.x=1", "recipe@teacher.recipe=quick", "recipe.protocol=heldout"]
)  # fmt: skip
def test_with_anything_changed_it_is_not_shown_and_that_is_said(made, word):
    comparison = made("loss=kd", word)
    assert "reported %" not in comparison_table(comparison).columns
    assert (
        f"published results of this pair are not comparable, so they are left out: {word}"
        in comparison_table(comparison).notes
    )
    assert "92.50" not in notes_of(comparison)


@pytest.mark.parametrize(
    "word", ["seed=3", "seeds=6", "device=cpu", "outputs=x", "dataset.root=there", "teacher.seed=1", "T=4", "T=4.0",
             "alpha=0.9", "recipe.protocol=paper", "columns=[nll]", "precision=bf16", "hydra.run.dir=x", "budget=full"]
)  # fmt: skip
def test_what_changes_no_setting_of_the_papers_leaves_it(made, word):
    assert column(made(word), "reported %")[2] == "92.50 last"


def test_another_protocol_is_another_number(made):
    comparison = made(protocol="heldout")
    assert "not comparable, so they are left out: recipe.protocol=heldout" in notes_of(comparison)


def test_a_teacher_from_a_file_is_the_published_one_if_its_accuracy_is(made):
    assert column(made("teacher.from=t.pth", source="t.pth"), "reported %")[2] == "92.50 last"
    other = made("teacher.from=t.pth", source="t.pth", teacher=96)
    assert "left out: teacher.from=t.pth, whose accuracy is not the reported one" in notes_of(other)


def test_nothing_is_said_where_nothing_is_reported(tmp_path):
    folders = trio(tmp_path, [93], [90])
    comparison = Comparison(folders, record(folders, overrides=["recipe.epochs=1"]))
    assert "reported" not in notes_of(comparison) and "reported %" not in comparison_table(comparison).columns


def test_two_students_are_no_pair_of_a_paper(tmp_path, made):
    folders = [artifact(tmp_path, "teacher", right=97), *(artifact(tmp_path, "baseline", 0, model=m) for m in "ab")]
    config = {"recipe": {"protocol": "paper"}, "reported": PAPER}
    cast = [("teacher", "teacher", ""), ("baseline", "baseline", "a"), ("baseline", "baseline", "b")]
    comparison = Comparison(folders, record(folders, config=config, cast=cast))
    assert column(comparison, "reported %") == ["97.00 last", "–", "–"]


def test_the_files_hold_it_as_numbers(made, tmp_path):
    write_comparison(tmp_path, made())
    rows = json.loads((tmp_path / "comparison.json").read_text())["rows"]
    assert rows[1]["reported"] == [{"top1": 90.5, "epoch": "last", "source": "Tian et al. 2020 (CRD), Table 1"}]
    assert "90.5" in (tmp_path / "comparison.csv").read_text()
