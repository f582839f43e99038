"""report.html: one file that loads nothing, escapes everything, says what is missing, and sorts in a real browser."""

import html.parser
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from urllib.parse import unquote

import pytest

from kdrun.results.comparison.comparison import Comparison
from kdrun.results.report.page import Code, Page, Picture, Section, _order
from kdrun.results.report.write import write_collection_page, write_run_page, write_sweep_page
from kdrun.results.runs import all_runs, read_run
from kdrun.results.tables import Exact, Table
from kdrun.sealed import seal
from kdrun.verbs import report
from tests.browser import PROGRAM, Browser
from tests.results.given import artifact, history, noisy, record, run, sweep, trio, two_students

HOSTILE = '<script>alert("&")</script>'
EPOCHS = "epoch,lr,loss,loss.ce,train_accuracy,val_accuracy\n" + "".join(
    f"{e},0.1,{2 / e:.3f},{2 / e:.3f},{1 - 0.5 / e:.3f},{1 - 0.6 / e:.3f}\n" for e in range(1, 10)
)


def trained(store, **more):
    """A teacher, and three seeds of baseline and student that differ, with histories."""
    made = [artifact(store, "teacher", z=noisy(4, 0), **more)]
    for role, sure in (("baseline", 1.5), ("student", 2.0)):
        made += [artifact(store, role, seed, z=noisy(sure, 10 * seed + int(sure)), **more) for seed in range(3)]
    for folder in made:
        history(folder, EPOCHS)
    return made


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A run, and a sweep of three cells of which one failed and one has not begun; both have their pages."""
    out = tmp_path_factory.mktemp("page") / "outputs"
    made = trained(out / "store")
    run(out, "2026-01-02_03-04-05-aaaaaa", made, config={"columns": [], "T": 4})
    cells = [(["T=1"], made), (["T=2"], ("failed", HOSTILE)), (["T=4"], ("waiting", None))]
    sweep(out, cells, status="interrupted", config={"columns": []})
    the_page(out, "run"), the_page(out, "sweep")
    return out


@pytest.fixture
def pages(outputs):
    """The texts of both pages."""
    return {"run": next(outputs.glob("runs/*/*/report.html")).read_text(),
            "sweep": next(outputs.glob("sweeps/*/*/report.html")).read_text()}  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, started once for all tests."""
    if not PROGRAM:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with Browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started


class Read(html.parser.HTMLParser):
    """Collects tags with their attributes, and checks that they close."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "br", "source", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def the_page(outputs, which="run"):
    """Write a page and give its text."""
    if which == "sweep":
        (folder,) = outputs.glob("sweeps/*/*")
        return write_sweep_page(folder, outputs / "store").read_text()
    (folder,) = outputs.glob("runs/*/*")
    known = json.loads((folder / "run.json").read_text())
    artifacts = [outputs / "store" / used["folder"] for used in known["artifacts"]]
    return write_run_page(folder, Comparison(artifacts, known)).read_text()


def test_a_page_is_well_formed_and_loads_nothing_from_elsewhere(pages):
    for text in pages.values():
        page = Read(text)
        assert page.open == []
        for tag, attributes in page.tags:
            for key in ("src", "srcset", "href", "data", "action"):
                if key in attributes:
                    assert attributes[key].startswith(("data:", "#")), (tag, attributes)
        assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "base")]
        policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")


def test_a_run_s_page_has_the_verdict_first_and_every_picture(pages):
    page = pages["run"]
    assert page.index('id="verdict"') < page.index("<h2>Comparison</h2>")
    assert page.index("points of test accuracy over the baseline") < page.index("<table>")
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == ["Comparison", "Training", "Errors per class", "Calibration, fidelity, convergence",
                        "Reproduce"]  # fmt: skip
    for start in ('<img src="data:image/svg+xml,', '<source media="(max-width: 600px)" srcset="data:image/svg+xml,'):
        assert page.count(start) == 4  # curves, classes, confusion, reliability
    assert "<h1>small on digits: kd, 3 seeds</h1>\n<pre>kdrun distill</pre>" in page


def test_class_names_reasons_and_commands_are_escaped(tmp_path):
    classes = [HOSTILE, "=1+1", "a_b&%", "‮four"]
    made = trained(tmp_path / "outputs" / "store", classes=classes, command=HOSTILE)
    run(tmp_path / "outputs", "2026-01-02_03-04-05-aaaaaa", made, config={"columns": []}, overrides=[HOSTILE])
    page = the_page(tmp_path / "outputs")
    assert HOSTILE not in page and "&lt;script&gt;alert(" in page
    assert "‮" not in page and "�four" in page
    assert [tag for tag, _ in Read(page).tags].count("script") == 1
    (folder,) = (tmp_path / "outputs").glob("runs/*/*")
    assert "\\_" in (folder / "classes.tex").read_text() and "'=1+1" in (folder / "classes.csv").read_text()


def test_a_half_finished_sweep_says_what_is_missing_and_why(pages):
    page = pages["sweep"]
    assert "<h1>small on digits: kd, 3 seeds, over T</h1>" in page
    assert "Partial: 1 of 3 not finished (T=4); the same command resumes them." in page
    assert "1 of 3 failed; see the reasons at the end of the page." in page
    assert page.index("<h2>Unfinished and failed</h2>") > page.index("<h2>Sweep</h2>")
    assert "&lt;script&gt;" in page and HOSTILE not in page
    assert "<h2>Errors per class: T=1</h2>" in page  # of the only cell that has numbers


def test_a_sweep_without_numbers_has_a_page_all_the_same(tmp_path):
    folder = sweep(tmp_path / "outputs", [(["T=1"], ("waiting", None)), (["T=2"], ("running", None))], status="running")
    page = write_sweep_page(folder, tmp_path / "outputs" / "store").read_text()
    assert "0 of 2 cells finished" in page and "Partial: 2 of 2 not finished" in page


def test_many_runs_on_one_page_keep_their_verdicts(outputs, tmp_path):
    runs = all_runs(outputs)
    table = Table(["run"], [[rows.name] for rows in runs], "so many")
    page = write_collection_page(runs, table, tmp_path).read_text()
    assert page.count('report.html">') == len(runs) == 4 and "<details" not in page  # their own pages have it all
    runs = [replace(rows, folder=tmp_path / rows.name) for rows in runs]
    page = write_collection_page(runs, table, tmp_path).read_text()
    assert page.count("(no page)") == 4
    assert page.count("<details") == sum(rows.comparison is not None for rows in runs) == 2
    assert "points of test accuracy over the baseline" in page


def test_the_store_is_found_beside_a_run_wherever_it_lies(outputs, tmp_path):
    (folder,) = outputs.glob("runs/*/*")
    assert read_run(folder).store(tmp_path / "elsewhere") == outputs.resolve() / "store"


def test_the_first_student_of_a_teacher_that_is_gone_still_has_its_tables(tmp_path):
    out = tmp_path / "outputs"
    made = trio(out / "store", [93], [90])
    folder = run(out, "2026-01-02_03-04-05-aaaaaa", made, config={"columns": []})
    shutil.rmtree(made[0])
    page = write_collection_page([read_run(folder)], Table(["run"], [["a"]]), tmp_path).read_text()
    assert "teacher" in page


def test_a_real_browser_sorts_a_table_and_has_nothing_to_complain_about(browser, tmp_path):
    cells = [["b", "+1.50 ± 0.2"], ["c", "–"], ["a", "-3.00"], ["d", Exact("10.00", {"": 10.0})]]
    (tmp_path / "t.html").write_text(
        Page("t", ["said"], [Section("one", [Table(["name", "number"], cells)])]).to_html()
    )
    complaints = browser.open(tmp_path / "t.html")
    seen = [browser.run(f"document.querySelectorAll('th button')[{n}].click(); {COLUMN}(0)") for n in (0, 1, 1)]
    assert seen == ["a b c d", "a b d c", "d b a c"]  # what is missing comes last, whichever way
    assert browser.run("document.querySelectorAll('th')[1].getAttribute('aria-sort')") == "descending"
    assert complaints == []


COLUMN = (
    "(n => [...document.querySelectorAll('tbody tr:not([hidden])')].map(row => row.cells[n].textContent).join(' '))"
)
LOOKED_AT = """(() => {
  const all = [...document.querySelectorAll("h1, h2, nav, pre, .verdict, .scroll, figure, .notes, .filter, footer")];
  const boxes = all.filter(e => e.checkVisibility()).map(e => ({ e, box: e.getBoundingClientRect() }));
  const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  return {
    width: innerWidth, page: document.documentElement.scrollWidth,
    overlaps: boxes.flatMap((one, i) => boxes.slice(i + 1).filter(other => over(one.box, other.box)).map(
      other => one.e.tagName + one.e.className + " " + other.e.tagName + other.e.className)),
    cut: boxes.filter(({ e }) => e.className === "scroll" && e.scrollWidth > e.clientWidth + 1).length,
    hints: [...document.querySelectorAll(".more")].filter(e => !e.hidden && e.checkVisibility()).length,
    first: [...document.querySelectorAll("th")].slice(0, 3).map(e => e.textContent),
    tables: document.querySelectorAll("table").length,
    narrow: [...document.images].filter(i => i.currentSrc !== i.src).length, pictures: document.images.length,
    drawn: [...document.images].every(i => i.complete && i.naturalWidth > 0),
    paper: [...document.images].map(image => {
      const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
      pen.drawImage(image, 0, 0);
      return [...pen.getImageData(2, 2, 1, 1).data].slice(0, 3).map(c => c.toString(16)).join("");
    }),
  };
})()"""


def test_pages_fit_telephones_and_screens_light_and_dark(browser, outputs):
    for kind, pictures, first in (("runs", 4, ["role", "test %", "Δ base"]), ("sweeps", 5, ["T", "best", "test %"])):
        (page,) = outputs.glob(f"{kind}/*/*/report.html")
        for width, dark in ((400, False), (1200, True)):
            assert browser.open(page, width, dark=dark) == []
            seen = browser.run(LOOKED_AT)
            assert (seen["width"], seen["overlaps"]) == (width, []) and seen["page"] <= width, (kind, seen)
            assert seen["first"] == first
            assert (seen["pictures"], seen["drawn"]) == (pictures, True)
            assert set(seen["paper"]) == {"1b2026" if dark else "ffffff"}
            if width == 400:
                assert seen["narrow"] == pictures and 0 < seen["hints"] == seen["cut"] <= seen["tables"]
            else:
                assert (seen["narrow"], seen["hints"], seen["cut"]) == (0, 0, 0)
        browser.open(page, dark=True, media="print")
        assert set(browser.run(LOOKED_AT)["paper"]) == {"ffffff"}  # nobody prints on dark paper


def test_all_runs_of_a_folder_are_one_page_to_sort_and_to_search(browser, outputs, capsys):
    more = outputs / "runs" / "distill" / "2026-01-01_00-00-00-bad000"
    more.mkdir()
    (more / "run.json").write_text("{")
    measured = outputs / "runs" / "evaluate" / "2026-01-05_00-00-00-e0a1ed"
    measured.mkdir(parents=True)
    (measured / "run.json").write_bytes(seal({**record([]), "verb": "evaluate", "overrides": ["run=latest"]}))
    assert report.main(["--all", f"outputs={outputs}"]) == 0
    page = outputs / "index.html"
    assert capsys.readouterr().out == f"6 runs, page: {page}\n"
    assert HOSTILE not in page.read_text() and "run.json is damaged" in page.read_text()
    links = [attributes["href"] for tag, attributes in Read(page.read_text()).tags if tag == "a"]
    assert len(links) == 4 and all((outputs / unquote(link)).is_file() for link in links)
    for width in (400, 1200):
        assert browser.open(page, width) == []
        seen = browser.run(LOOKED_AT)
        assert (seen["width"], seen["overlaps"]) == (width, []) and seen["page"] <= width, seen
        assert seen["first"] == ["run", "student %", "Δ"]
    assert seen["cut"] == 0
    column = "[...document.querySelectorAll('th')].findIndex(head => head.textContent === 'status')"
    assert Counter(browser.run(f"{COLUMN}({column})").split()) == Counter(
        ["done", "done", "done", "failed", "not", "started", "unreadable"]
    )
    enter = "((e, value) => { e.value = value; e.dispatchEvent(new Event('input', { bubbles: true })) })"
    browser.run(f"{enter}(document.querySelector('input'), 'T=2 ALERT')")
    assert browser.run(f"{COLUMN}(0)") == "5eeb01/1"
    assert browser.run("document.querySelector('output').textContent") == "1 of 6"
    browser.run(f"{enter}(document.querySelector('input'), '')")
    choice = "[...document.querySelectorAll('select')].find(s => s.parentElement.textContent.startsWith('status'))"
    browser.run(f"{enter}({choice}, 'done')")
    assert browser.run("document.querySelector('output').textContent") == "3 of 6"
    browser.run("document.querySelectorAll('th button')[0].click()")
    assert browser.run(f"{COLUMN}(0)") == "5eeb01/0 aaaaaa e0a1ed (no page)"
    assert browser.run("document.querySelector('tbody a').href") == (outputs / links[1]).resolve().as_uri()


def test_a_page_of_all_runs_takes_no_names(outputs):
    with pytest.raises(ValueError, match=r"--all takes no PATHS, it shows every run of .*; got latest"):
        report.main(["--all", "latest", f"outputs={outputs}"])
    with pytest.raises(ValueError, match=r"there are no runs under .* yet; start with kdrun distill"):
        report.main(["--all", f"outputs={outputs}/empty"])


def test_words_code_and_pictures_stand_where_they_were_put(tmp_path):
    (tmp_path / "p.png").write_bytes(b"\x89PNG")
    section = Section("s", ["a < b", Code("x\n  y"), Picture(tmp_path / "p.png", 'say "hi"')], folded=True)
    page = Page("t", [], [section], warnings=["careful"], facts=[("command", "kdrun")]).to_html()
    assert "<p>a &lt; b</p>" in page and "<pre>x\n  y</pre>" in page
    assert 'src="data:image/png;base64,iVBORw=="' in page and "say &#34;hi&#34;" in page
    assert '<details id="s1"><summary>s</summary>' in page and "<dt>command</dt><dd>kdrun</dd>" in page
    assert "careful" in page


@pytest.mark.parametrize(
    ("small", "large"),
    [("16.8 K", "2.8 M"), ("812", "1.2 K"), ("70.1 kB", "1.2 MB"), ("59 s", "2 min 00 s"), ("2 min 10 s", "1 h 02 min"),
     ("< 0.001", "0.5"), ("−3.00", "+1.00"), ("[-0.13, +1.98]", "[+0.50, +1.63]")],
)  # fmt: skip
def test_a_column_is_sorted_by_what_its_cells_mean(small, large):
    assert float(_order(small)) < float(_order(large))


def test_a_sweep_over_two_students_says_whose_verdict_is_whose(tmp_path):
    folders, cast = two_students(tmp_path / "outputs" / "store", [(90, 91, 92), (70, 71, 72)])
    sweep(tmp_path / "outputs", [(["T=1"], folders)], config={"columns": []}, cast=cast)
    page = the_page(tmp_path / "outputs", "sweep")
    verdict = page[page.index('id="verdict"') :]
    assert verdict.index("small: ") < verdict.index("tiny: ")
    assert "<h2>Errors per class: T=1 (small)</h2>" in page


def test_class_names_in_another_script_make_no_noise(tmp_path, recwarn):
    made = trained(tmp_path / "outputs" / "store", classes=["日本語", "हिन्दी", "c", "d"])
    run(tmp_path / "outputs", "2026-01-02_03-04-05-aaaaaa", made, config={"columns": []})
    assert "日本語" in the_page(tmp_path / "outputs")
    assert not [w.message for w in recwarn if "Glyph" in str(w.message)]


def test_a_sweep_over_nothing_has_its_page_all_the_same(tmp_path):
    sweep(tmp_path / "outputs", [([], trained(tmp_path / "outputs" / "store"))], config={"columns": []})
    assert "<h2>Errors per class: the only cell</h2>" in the_page(tmp_path / "outputs", "sweep")
