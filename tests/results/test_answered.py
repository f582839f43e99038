"""A teacher that is another model's answers to training images has no test accuracy, and the rest goes on without."""

import json

from kdrun.results.comparison.classes import class_table
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.examples import Answers
from kdrun.results.comparison.table import comparison_table
from kdrun.results.comparison.write import write_comparison
from kdrun.results.report.run import shown
from tests.results.given import changed, point, record, sums, trio


def answered(folder, val, **config):
    teacher, *others = trio(folder, students=[93, 95], baselines=[90, 91])
    (teacher / "logits.safetensors").unlink()
    at = point(0, 0.97, val, None)
    untrained = {"parameters": 0, "bytes": 0, "epochs": 0, "seconds": 0.0, "selected": at, "last": at}
    untrained |= {"model": "answers", "formula": "another model's logits", "train_images": 1200}
    changed(teacher / "result.json", **untrained, checksums=sums(teacher))
    return Comparison([teacher, *others], record([teacher, *others], config=config))


def test_its_row_has_train_accuracy_and_no_test_accuracy_and_no_gap(tmp_path):
    comparison = answered(tmp_path, 0.96, teacher={"fixed": True}, augment={"crop_flip": {}}, dataset={"flip": True})
    table = comparison_table(comparison)
    cells = [dict(zip(table.columns, map(str, row), strict=True)) for row in table.rows]
    assert [cells[0][c] for c in ("model", "params", "train %", "val %", "test %", "Δ base", "gap %", "epoch")] == [
        *("answers", "–", "97.00", "96.00", "–", "–", "–", "–")
    ]
    assert [row["gap %"] for row in cells] == [row["agree %"] for row in cells] == ["–"] * 3
    assert str(cells[2]["Δ base"]) == "+3.50"
    notes = "\n".join(table.notes)
    assert "gap % and agree % are undefined: the teacher's file has no answers to test images" in notes
    assert "teacher: another model's logits, from a file; train % is over the 1,200 images that it answered" in notes
    assert "are for images without augmentation; the students trained on augmented ones (teacher.fixed=true)" in notes
    assert comparison.verdict().parts[0].startswith("No significant difference: +3.50 points")
    write_comparison(tmp_path, comparison)
    written = json.loads((tmp_path / "comparison.json").read_text())["rows"][0]
    assert written["test_accuracy"] is None and written["train_accuracy"]["mean"] == 0.97


def test_what_compares_test_images_leaves_it_out(tmp_path):
    comparison = answered(tmp_path, None)
    assert list(shown(comparison)) == ["baseline", "student"]
    assert "the students trained on these" in "\n".join(comparison_table(comparison).notes)
    assert "teacher %" not in class_table(comparison).columns
    assert Answers.of(comparison) is None
    assert "teacher.fixed" not in "\n".join(comparison_table(comparison).notes)
