"""What several tests of results begin with."""

import pytest

from tests.results.given import FIRST, SECOND, run, seeds_of, sweep, trio


@pytest.fixture
def outputs(tmp_path):
    """Two runs and a sweep of two cells, the second of which failed."""
    out = tmp_path / "outputs"
    store = out / "store"
    first = trio(store, [93, 95, 94], [90, 91, 92])
    run(out, FIRST, first, config={"T": 4, "recipe": {"lr": 0.01, "epochs": 30}, "outputs": "a"})
    run(out, SECOND, trio(store, [94], [90], teacher=96), overrides=["seeds=1"], created="2026-01-02T03:04:09+00:00",
        config={"T": 8, "recipe": {"lr": 0.01, "epochs": 30}, "outputs": "b", "device": "cpu"})  # fmt: skip
    sweep(out, [(["T=1"], first), (["T=2"], ("failed", "boom"))], status="failed", created="2026-01-03T10:00:01+00:00")
    (out / "latest").symlink_to(f"runs/distill/{SECOND}")
    return out


@pytest.fixture
def cell(tmp_path):
    """Make the artifacts of one cell: the teacher and the baselines are the same in all."""

    def make(rights, val, baselines=(90, 91, 92)):
        store = tmp_path / "store" / f"{val}-{rights}"
        return trio(store, [], list(baselines)[: len(rights)]) + seeds_of(store, "student", rights, val=val)

    return make


@pytest.fixture
def temperatures(tmp_path, cell):
    """Four temperatures; T=2 is best on validation, T=4 on test data."""
    cells = [(1, 0.91, [90, 92, 92]), (2, 0.95, [93, 95, 94]), (4, 0.94, [96, 96, 97]), (8, 0.92, [92, 93, 93])]
    return sweep(tmp_path, [([f"T={T}"], cell(rights, val)) for T, val, rights in cells])


@pytest.fixture
def figures(monkeypatch):
    """The figures that would be saved, to look at what is in them; to lay them out and draw them would be slow."""
    from kdrun.results.plots import style
    from kdrun.results.plots.kept import Pictures

    saved = []
    monkeypatch.setattr(style, "now", Pictures)  # drawn, whatever is kept
    for step in ("lay_out", "arrange"):
        monkeypatch.setattr(style, step, lambda *_: None)
    monkeypatch.setattr(style, "_write_svg", lambda figure, path: "narrow" in path.name or saved.append(figure))
    return saved


@pytest.fixture
def written():
    """Return all that is written in a figure, in its axes, parts and legends."""
    from matplotlib.text import Text

    return lambda figure: [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.fixture
def beyond(monkeypatch):
    """How far each saved file's text and axes reach beyond its edges, in inches."""
    from matplotlib.figure import Figure

    far = {}

    def saved(figure, path, **options):
        savefig(figure, path, **options)
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()  # as it was saved
        far[path.name] = max(-drawn.x0, -drawn.y0, drawn.x1 - width, drawn.y1 - height)

    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", saved)
    return far
