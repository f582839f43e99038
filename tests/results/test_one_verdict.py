"""All that one command writes says the same of whether a difference is shown."""

import json
import re

import pytest

from kdrun.results import evidence
from kdrun.results.collect import brief, collected, write_report
from kdrun.results.comparison.classes import class_table
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.measures_tables import differences_table
from kdrun.results.comparison.write import write_comparison
from kdrun.results.evidence import Evidence, judge
from kdrun.results.report.write import write_collection_page, write_run_page
from kdrun.results.robustness.verdict import judgement
from kdrun.results.statistics import Paired, paired
from tests.results.given import record, run, trio

EQUAL, FALLING = [80, 81, 82, 83, 84, 85], [90, 80, 70, 60, 50, 40]
NONE = "No significant difference"
WORDS = "|".join(evidence.WORDS)


@pytest.mark.parametrize(
    ("difference", "lost", "p", "evidence"),
    [
        (None, False, None, Evidence.NOT_SHOWN),
        (paired([0.01]), False, None, Evidence.NOT_SHOWN),
        (paired([0.01] * 5), False, None, Evidence.NOT_SHOWN),  # without an interval p decides, and cannot with five
        (paired([0.01] * 6), False, None, Evidence.SHOWN),
        (paired([0.01] * 6), "1 diverged", None, Evidence.INDICATIVE),
        (paired([0.01] * 6), False, 0.0625, Evidence.NOT_SHOWN),  # corrected for two tests
        (paired([0.0] * 6), False, None, Evidence.NOT_SHOWN),
        (paired([-0.01, -0.011, -0.012]), False, None, Evidence.INDICATIVE),
        (Paired(0.012, 0.001, 0.023, 0.0625, 6), False, None, Evidence.NOT_SHOWN),  # the interval alone is not enough
        (Paired(0.012, -0.001, 0.025, 0.04, 7), False, None, Evidence.NOT_SHOWN),  # nor is p
    ],
)
def test_one_rule_decides_what_is_shown(difference, lost, p, evidence):
    judged = judge(difference, lost, p)
    assert judged.evidence is evidence
    assert evidence is Evidence.NOT_SHOWN or judged.positive == (difference.mean > 0)
    if difference is not None and difference.p is not None and p is None:
        sentence = judgement("attacks", difference, difference, difference, str(lost or ""))[0]
        word = {Evidence.SHOWN: "More", Evidence.INDICATIVE: "Indicative", Evidence.NOT_SHOWN: NONE}
        assert sentence.startswith(word[evidence])


@pytest.mark.parametrize(
    ("students", "word", "measure"),
    [
        ([right + 1 for right in EQUAL], "Gain", "better"),
        ([right + 1 for right in EQUAL[:3]], NONE, "not significant"),  # three equal differences have no interval
        ([82, 83, 85], "Indicative gain", "better, indicative"),
        ([81, 79, 85], NONE, "not significant"),
        ([83], "Not tested", "not tested"),
        ([*(right + 1 for right in EQUAL), None], "Indicative gain", "better, indicative"),
    ],
)
def test_tables_and_pages_of_a_run_say_the_same(tmp_path, students, word, measure):
    baselines = [*EQUAL, 86][: len(students)]
    folders = trio(tmp_path / "store", students, baselines)
    comparison = Comparison(folders, record(folders))
    written = write_comparison(tmp_path, comparison)
    files = [(tmp_path / f"comparison.{ending}").read_text() for ending in ("md", "tex")]
    page = write_run_page(tmp_path, comparison).read_text()
    kept = json.loads((tmp_path / "comparison.json").read_text())
    for text in (written, *files, page, kept["verdict"], kept["lanes"][0]["verdict"]):
        assert set(re.findall(rf"(?:{WORDS}): ", text.replace("\n", " "))) == {f"{word}: "}
    rows = {row[1] if len(row) > 7 else row[0]: row[-1] for row in differences_table(comparison).rows}
    assert rows["balanced %"] == measure  # the classes are of one size
    assert ("seems to" in str(class_table(comparison).titles)) <= (word != "Gain")


@pytest.mark.parametrize(
    ("runs", "title", "words"),
    [
        ((6,), "Gain: ", {"Gain"}),
        ((6, 6), "None of the 2 students differs significantly", {NONE}),  # p = 0.031 twice is 0.062 after correction
        ((3, 3), "(Holm-corrected); indicative: 2 may gain", {"Indicative gain"}),
        ((7, 7), "Of the 2 students, 2 gained", {"Gain"}),  # p = 0.016
        ((7, 3), "Of the 2 students, 1 gained", {"Gain", "Indicative gain"}),
    ],
)
def test_the_report_of_several_runs_corrects_every_verdict_for_their_number(tmp_path, runs, title, words):
    outputs = tmp_path / "outputs"
    for number, seeds in enumerate(runs):
        baselines = [80 - number + seed for seed in range(seeds)]
        folders = trio(outputs / "store", [right + 2 + (k == 1) for k, right in enumerate(baselines)], baselines)
        run(outputs, f"2026-01-02_03-04-05-aaaaa{number}", folders)
    collection = collected([], outputs)
    table = write_report(collection, tmp_path / "report")
    page = write_collection_page(collection, table, tmp_path / "report").read_text()
    kept = json.loads((tmp_path / "report" / "report.json").read_text())
    texts = [brief(table).to_text(), (tmp_path / "report" / "report.md").read_text(), page, json.dumps(kept)]
    assert all(title in " ".join(text.split()) for text in texts)
    assert set(re.findall(rf">({WORDS})[:,]", page)) == words
    assert set(re.findall(rf"({WORDS})[:,]", json.dumps([one["verdict"] for one in kept["runs"]]))) == words
