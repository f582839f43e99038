"""A picture of the same numbers is drawn once, and one of other numbers, or that is damaged, is drawn."""

import os

import pytest

from kdrun.results.plots import kept, style
from kdrun.results.report.write import comparison_of, write_run_page, write_sweep_page
from kdrun.results.runs import read_run
from tests.results.given import run, sweep, trio

CONFIG = {"columns": [], "report": True}


@pytest.fixture
def drawn(monkeypatch):
    """The names of the pictures that are drawn, each as a line of text."""
    names = []

    def save(figure, folder, name, place=None):
        names.append(name)
        for file in kept.now().files(name):
            (folder / file).write_text(f"<svg>{name} {len(names)}</svg>")

    modules = ("classes", "curves", "reliability", "sweep")
    for module in modules:
        monkeypatch.setattr(f"kdrun.results.plots.{module}.save", save)
    return names


def page(out, folder):
    """Write the page of a run into its folder."""
    return write_run_page(folder, comparison_of(read_run(folder), out / "store")).read_text()


def test_the_page_of_the_same_command_has_the_pictures_of_before_and_all_else_of_its_own(tmp_path, drawn, monkeypatch):
    out = tmp_path / "outputs"
    made = trio(out / "store", [93, 95], [90, 91])
    first = run(out, "2026-01-02_03-04-05-aaaaaa", made, config=CONFIG, created="2026-01-02T03:04:05+00:00")
    again = run(out, "2026-01-03_03-04-05-bbbbbb", made, config=CONFIG, created="2026-01-03T03:04:05+00:00")
    before = page(out, first)
    names = sorted(drawn)
    assert names == ["classes", "confusion", "reliability"]
    after = page(out, again)
    assert sorted(drawn) == names
    files = [f"{name}{form}.svg" for name in names for form in ("", "-narrow")]
    assert all((again / file).read_bytes() == (first / file).read_bytes() for file in files)
    own = ("2026-01-03T03:04:05+00:00", "2026-01-03_03-04-05-bbbbbb")
    assert all(words in after and words not in before for words in own)
    pictures = [[line for line in text.splitlines() if "data:image/svg" in line] for text in (before, after)]
    assert pictures[0] and pictures[0] == pictures[1]

    # what is damaged, removed, of other numbers, or wanted in another form is drawn
    (place,) = (out / kept.PLACE).iterdir()
    (place / "classes.svg.gz").write_bytes(b"\x1f\x8b damaged")
    (place / "confusion-narrow.svg.gz").unlink()
    page(out, again)
    assert sorted(drawn) == sorted([*names, "classes", "confusion"])
    drawn.clear()
    measured = made[0] / "measured"
    measured.mkdir()
    (measured / "cost-1.json").write_text("{}")
    page(out, again)
    assert sorted(drawn) == names
    drawn.clear()
    monkeypatch.setenv("KDRUN_REPORT", "png")
    page(out, again)
    assert sorted(drawn) == names and (again / "classes.png").is_file()


def test_a_sweep_s_picture_is_drawn_once_for_table_and_page_and_anew_where_a_cell_differs(tmp_path, drawn):
    out = tmp_path / "outputs"
    cells = [
        ([f"T={T}"], trio(out / "store", [], [90]) + trio(out / "store" / str(T), [right], [])[1:])
        for T, right in ((1, 91), (2, 93))
    ]
    folder = sweep(out, cells, config=CONFIG | {"outputs": str(out)})
    write_sweep_page(folder, out / "store")
    assert drawn.count("sweep") == 1
    write_sweep_page(folder, out / "store")
    assert drawn.count("sweep") == 1


def test_kept_pictures_are_bounded_and_the_ones_used_last_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "MOST", 3)
    (tmp_path / "store").mkdir()
    for number in (0, 1, 2, 0, 3, 4):
        with kept.pictures_of(["run", number], tmp_path / "store", report=True):
            style.picture(
                tmp_path,
                "one",
                lambda plt: [(tmp_path / f).write_text("<svg/>") for f in ("one.svg", "one-narrow.svg")],
            )
        for place in (tmp_path / kept.PLACE).iterdir():  # a second passes
            os.utime(place, (place.stat().st_atime, place.stat().st_mtime - 1))
    left = set()
    for number in range(5):
        with kept.pictures_of(["run", number], tmp_path / "store", report=True):
            left |= {number} if kept.now().copy("one", tmp_path) else set()
    assert left == {0, 3, 4}
    with kept.pictures_of(["run", 0], None, report=True):  # without a store nothing is kept
        assert kept.now().kept is None
