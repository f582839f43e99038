"""report.html: one file that loads nothing, escapes everything, says what is missing, and sorts in a real browser."""

import html.parser
import json
import re
import shutil
import subprocess

import pytest

from kdrun.results.comparison.comparison import Comparison
from kdrun.results.report.page import Code, Page, Picture, Section, _order
from kdrun.results.report.write import write_collection_page, write_run_page, write_sweep_page
from kdrun.results.runs import all_runs, read_run
from kdrun.results.tables import Exact, Table
from tests.results.given import artifact, history, noisy, run, sweep, trio, two_students

HOSTILE = '<script>alert("&")</script>'
BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
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


@pytest.fixture
def outputs(tmp_path):
    """A run, and a sweep of three cells of which one failed and one has not begun."""
    out = tmp_path / "outputs"
    made = trained(out / "store")
    run(out, "2026-01-02_03-04-05-aaaaaa", made, config={"columns": [], "T": 4})
    cells = [(["T=1"], made), (["T=2"], ("failed", HOSTILE)), (["T=4"], ("waiting", None))]
    sweep(out, cells, status="interrupted", config={"columns": []})
    return out


class Read(html.parser.HTMLParser):
    """Collects tags with their attributes, and checks that they close."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "br"):
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


def test_a_page_is_well_formed_and_loads_nothing_from_elsewhere(outputs):
    for which in ("run", "sweep"):
        page = Read(the_page(outputs, which))
        assert page.open == []
        for tag, attributes in page.tags:
            for key in ("src", "href", "data", "action"):
                if key in attributes:
                    assert attributes[key].startswith(("data:", "#")), (tag, attributes)
        assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "base")]
        policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")


def test_a_run_s_page_has_the_verdict_first_and_every_picture(outputs):
    page = the_page(outputs)
    assert page.index('id="verdict"') < page.index("<h2>Comparison</h2>")
    assert page.index("points of test accuracy over the baseline") < page.index("<table>")
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == ["Comparison", "Training", "Errors per class", "Calibration, fidelity, convergence",
                        "How to make it again"]  # fmt: skip
    assert page.count('<img src="data:image/svg+xml;base64,') == 4  # curves, classes, confusion, reliability


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


def test_a_half_finished_sweep_says_what_is_missing_and_why(outputs):
    page = the_page(outputs, "sweep")
    assert "Partial: 1 of 3 not finished (T=4); the same command goes on with them." in page
    assert "1 of 3 failed; the reasons stand at the end." in page
    assert page.index("<h2>Not done</h2>") > page.index("<h2>Sweep</h2>")
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


def in_the_browser(page, script, folder):
    """Open a page in Chromium, run a script in it, give what it puts into #said, and the console's lines."""
    (folder / "seen.html").write_text(page.replace("</body>", f'<pre id="said"></pre><script>{script}</script></body>'))
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
             "--window-size=500,900",
             f"--user-data-dir={folder / 'profile'}", f"file://{folder / 'seen.html'}"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    output = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    assert output, done.stdout[:500]
    return output[1], [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed (apt-get install chromium)")
def test_a_real_browser_sorts_a_table_and_has_nothing_to_complain_about(outputs, tmp_path):
    cells = [["b", "+1.50 ± 0.2"], ["c", "–"], ["a", "-3.00"], ["d", Exact("10.00", {"": 10.0})]]
    page = Page("t", ["said"], [Section("one", [Table(["name", "number"], cells)])]).to_html()
    script = """
      const column = n => [...document.querySelectorAll("tbody tr")].map(row => row.cells[n].textContent).join(" ");
      const press = n => document.querySelectorAll("th button")[n].click();
      const seen = [];
      for (const n of [0, 1, 1]) { press(n); seen.push(column(0)); }
      seen.push(document.querySelectorAll("th")[1].getAttribute("aria-sort"));
      document.getElementById("said").textContent = seen.join("|");
    """
    text, console = in_the_browser(page, script, tmp_path)
    assert text == "a b c d|a b d c|d b a c|descending"  # what is missing comes last, whichever way
    assert console == []


@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed (apt-get install chromium)")
@pytest.mark.parametrize("which", ["run", "sweep"])
def test_a_real_browser_shows_every_picture_of_a_page_and_fits_a_narrow_screen(outputs, tmp_path, which):
    script = """
      const drawn = [...document.images].every(image => image.complete && image.naturalWidth > 0);
      const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
      document.getElementById("said").textContent = [document.images.length, drawn, wide].join(" ");
    """
    page = the_page(outputs, which)
    text, console = in_the_browser(page, f"addEventListener('load', () => {{ {script} }});", tmp_path)
    assert text == f"{4 if which == 'run' else 5} true false"
    assert console == []


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
