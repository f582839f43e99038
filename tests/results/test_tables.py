"""One table in four formats: what others wrote into names and reasons does nothing there, and numbers stay numbers."""

import csv
import io
import math
import re

import pytest

from kdrun.results.statistics import Summary
from kdrun.results.tables import Exact, Sentences, Table, interval, per_cent

HOSTILE = ["<script>alert(1)</script>", "=cmd()", "a_b&%", "x|y", "[x", "*y", "\\input{z}", "$x^2$", "{~}", "#1"]


def table(*cells, **more):
    return Table(["name", "test %"], [[cell, per_cent(0.975)] for cell in cells], **more)


def read(text):
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("name", [*HOSTILE, "-1+1", "+cmd", "@sum(a)", "two\nlines", 'comma,quote"'])
def test_a_spreadsheet_runs_no_cell_and_shows_every_name(name):
    rows = read(table(name).to_csv())
    assert rows[0] == ["name", "test %"]
    assert len(rows) == 2 and len(rows[1]) == 2
    assert rows[1][0].lstrip("'") == name.replace("\n", " ")
    assert rows[1][0][0] not in "=+-@"


@pytest.mark.parametrize("number", ["-0.50", "+0.93", "-1", "0.005", "1e-3", "-2.5e-05"])
def test_a_signed_number_stays_a_number_in_the_spreadsheet(number):
    assert float(read(table(number).to_csv())[1][0]) == float(number)


def test_the_spreadsheet_has_exact_numbers_in_columns_of_their_own():
    rows = [
        ["a", per_cent(Summary(2 / 3, 0.0123456, 3)), interval(-0.0013, 0.0198)],
        ["b", per_cent(Summary(0.5, None, 1)), interval(None, None)],
    ]
    heading, first, second = read(Table(["name", "test %", "95%"], rows).to_csv())
    assert heading == ["name", "test %", "test % std", "95% low", "95% high"]
    assert [float(v) for v in first[1:]] == pytest.approx([200 / 3, 1.23456, -0.13, 1.98], abs=1e-9)
    assert second == ["b", "50.0", "", "", ""]


def _unescaped(line):
    return re.split(r"(?<!\\)\|", line)


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_keeps_its_columns_and_acts_on_nothing(name):
    lines = table(name).to_markdown().splitlines()
    assert [len(_unescaped(line)) for line in lines] == [4, 4, 4]
    assert "<script" not in lines[2]
    for sign in "*`~":
        assert not re.search(rf"(?<!\\){re.escape(sign)}", lines[2])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>", "&lt;script>"),
        ("x|y", r"x\|y"),
        ("a_b", "a_b"),
        ("_a_", r"\_a\_"),
        ("__init__", r"\_\_init\_\_"),
        ("$x_1$", r"\$x_1\$"),
        ("p < 0.05", "p < 0.05"),
        ("&lt;b>", "&amp;lt;b>"),
        ("[click](http://x)", r"[click\](http://x)"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_markdown_escapes_what_would_act_and_nothing_else(name, shown):
    assert table(name).to_markdown().splitlines()[2] == f"| {shown} | 97.50 |"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a_b&%", r"a\_b\&\%"),
        ("x|y", r"x$|$y"),
        ("[x", r"{}[x"),
        ("*y", r"{}*y"),
        ("\\input{z}", r"\textbackslash{}input\{z\}"),
        ("<i>", r"$<$i$>$"),
        ("$#^~", r"\$\#\textasciicircum{}\textasciitilde{}"),
        ("96.67 ± 0.42", r"96.67 $\pm$ 0.42"),
        ("–", "--"),
        ("-0.13, +1.98", "$-$0.13, +1.98"),
        ("run 2026-11-21", "run 2026-11-21"),
    ],
)
def test_latex_escapes_its_special_characters(name, shown):
    body = table(name).to_latex().splitlines()
    assert body[body.index(r"\midrule") + 1] == rf"{shown} & 97.50 \\"


def test_a_latex_heading_that_begins_with_a_bracket_is_no_argument_of_the_rule():
    lines = Table(["[a]", "b"], [["1", "2"]]).to_latex().splitlines()
    assert lines == [
        r"\begin{tabular}{rr}", r"\toprule", r"{}[a] & b \\", r"\midrule", r"1 & 2 \\", r"\bottomrule", r"\end{tabular}"
    ]  # fmt: skip


def test_nothing_leaves_a_latex_comment():
    text = table("a", title="gain\n\\input{x}", notes=["one\r\ntwo\x85three"], sources=["kdrun\u2028\\input{y}"])
    lines = text.to_latex().splitlines()
    assert lines[:3] == ["% gain \\input{x}", "% one two three", "% kdrun \\input{y}"]
    assert lines[3].startswith(r"\begin{tabular}")


@pytest.mark.parametrize("evil", ["\x1b[2Jgone", "\x1b]0;title\x07", "a\x08\x08b", "\u202egnp.exe", "x\x9bm", "\x00"])
def test_control_characters_reach_neither_terminal_nor_file(evil):
    table = Table(["name"], [[evil]], title=evil, notes=[evil], sources=[evil])
    for text in (table.to_text(), table.to_markdown(), table.to_csv(), table.to_latex()):
        assert all(c.isprintable() or c == "\n" for c in text)
        assert "�" in text


def test_the_terminal_table_is_aligned_numbers_to_the_right():
    table = Table(
        ["name", "test %"], [["a", per_cent(0.975)], ["long", per_cent(1.0)]], title="verdict", notes=["note"]
    )
    assert table.to_text().splitlines() == [
        "verdict", "", "name  test %", "────  ──────", "a      97.50", "long  100.00", "", "note"
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [80, 120])
def test_a_wide_table_is_wrapped_to_the_terminal_and_loses_no_word(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    words = [f"word{k}" for k in range(30)]
    table = Table(["run", "Δ", "typed"], [["a" * 20, "+0.93 ± 1.00", " ".join(words)]], notes=[" ".join(words)])
    text = table.to_text()
    assert max(len(line) for line in text.splitlines()) <= columns
    assert all(text.count(f"{word} ") + text.count(f"{word}\n") + text.endswith(word) == 2 for word in words)


@pytest.mark.parametrize(
    ("width", "left"),
    [
        (60, ["size", "train %", "agree %", "time", "model", "params"]),
        (80, ["size", "train %", "agree %", "time", "model"]),
        (120, ["size"]),
        (160, []),
    ],
)
def test_a_narrow_terminal_goes_without_the_least_needed_columns_and_says_so(width, left, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    mean = per_cent(Summary(0.9602, 0.0111, 3))
    cells = {
        "role": "baseline", "model": "digits_student", "params": "2.8 K", "size": "11.2 kB", "train %": mean,
        "val %": mean, "test %": mean, "Δ base": "+1.00", "gap %": "34", "agree %": mean, "n": "3", "epoch": "31–40",
        "time": "1 min 32 s",
    }  # fmt: skip
    table = Table(
        list(cells), [list(cells.values())], "Not shown: +1.00 points (95% [-0.05, +1.87], p = 0.250, n = 3)" * 2
    )
    text = table.to_text("comparison.md has them")
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    head, row = next((a, lines[i + 2]) for i, a in enumerate(lines) if a.startswith("role"))
    kept = [name for name in cells if name not in left]
    assert head.split() == " ".join(kept).split()
    numbers = [cells[name] if width == 160 else cells[name].replace(" ± ", "±") for name in kept]
    assert [cell.replace(" ± ", "±") for cell in re.split(r" {2,}", row)] == [n.replace(" ± ", "±") for n in numbers]
    note = f"left out on {width} columns: {', '.join(left)}; comparison.md has them"
    assert (note in " ".join(text.split())) == bool(left)
    assert text.count("[-0.05, +1.87]") == 2 and text.count("n = 3") == 2  # neither is parted
    assert "left out" not in table.to_text(wide=True)


def test_a_setting_too_long_for_its_column_is_parted_where_it_can_be_read(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    typed = "experiment=three_percent transfer.fraction=0.03 T=4"
    text = Table(["run", *"abcdef", "typed"], [["aaaaaa", *["ten letters"] * 6, typed]]).to_text()
    last = [line.split("  ")[-1].strip() for line in text.splitlines()[2:]]
    assert last == ["experiment=", "three_percent", "transfer.", "fraction=0.03", "T=4"]


def test_what_names_a_row_is_never_broken(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    name = "2026-01-02_03-04-05-aaaaaa/10"
    table = Table(["run", *"abcd"], [[name, *["some words more"] * 4], ["two words", *["more"] * 4]])
    assert name in table.to_text()


def test_a_share_is_written_as_per_cent_without_a_spread_where_there_is_one_point():
    assert per_cent(Summary(0.9305, 0.0021, 3)) == "93.05 ± 0.21"
    assert per_cent(Summary(0.9305, None, 1)) == "93.05"
    assert per_cent(-0.005, signed=True) == "-0.50"
    assert per_cent(0.0093, signed=True) == "+0.93"
    assert per_cent(None) == "–"
    assert interval(-0.0013, 0.0198) == "[-0.13, +1.98]"
    assert interval(None, 0.1) == "–"


def test_columns_in_which_no_row_says_anything_are_left_out_when_asked():
    table = Table(["a", "b", "c"], [["1", "–", ""], ["2", "", "–"]], "title", ["note"], ["source"])
    kept = table.without_empty("a", "b")
    assert (kept.columns, kept.rows) == (["a", "c"], [["1", ""], ["2", "–"]])
    assert (kept.title, kept.notes, kept.sources) == ("title", ["note"], ["source"])


def test_json_holds_the_cells_as_people_read_them():
    table = Table(["name", "n"], [["a", Exact("3", {"": 3})]], "said", ["note"]).to_json()
    assert table == {"title": "said", "columns": ["name", "n"], "rows": [{"name": "a", "n": "3"}], "notes": ["note"]}


def test_an_unknown_number_is_an_empty_field():
    assert read(table("–").to_csv())[1] == ["", "97.5"]
    assert not math.isnan(float(read(table("x").to_csv())[1][1]))


def test_each_sentence_of_a_title_begins_a_line():
    sentences = Sentences(["small: gain", "tiny: loss"])
    table = Table(["a"], [["1"]], sentences)
    assert sentences == "small: gain tiny: loss" == table.to_json()["title"]
    assert table.to_text().splitlines()[:3] == ["small: gain", "tiny: loss", ""]
    assert table.to_markdown().startswith("small: gain\n\ntiny: loss\n\n| a |")
    assert table.to_latex().startswith("% small: gain\n% tiny: loss\n")


def test_wide_characters_take_two_columns_of_a_terminal_and_marks_none():
    lines = Table(["class", "%"], [["日本語", "1.00"], ["e\u0301te\u0301", "22.00"]]).to_text().splitlines()
    assert lines[2] == "日本語   1.00" and lines[3] == "e\u0301te\u0301     22.00"


def test_a_column_without_a_single_number_is_aligned_as_it_is_with_numbers():
    rows = [["0", "–", "–", ""], ["1", "–", "–", "★"]]
    empty = Table(["T", "test %", "lane", "best"], rows)
    assert empty.numeric == [True, True, False, False]
    assert "| ---: | ---: | :--- | :--- |" in empty.to_markdown() and r"\begin{tabular}{rrll}" in empty.to_latex()
    assert [line.index("–") for line in empty.to_text().splitlines() if "–" in line] == [8, 8]  # below the %
    assert Table(["T", "test %"], []).numeric == [False, False]
