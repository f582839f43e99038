"""What a person sees while a training runs: on a real terminal, and off it."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios

import pytest

from tests.faults.conftest import SMALL


class Screen:
    """Just enough of a terminal: text, carriage return, line feed, cursor up, erase; the lines that were left."""

    def __init__(self, columns):
        self.columns, self.lines, self.row, self.column = columns, [[]], 0, 0
        self.wrapped = 0

    def feed(self, text):
        for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.", text, flags=re.DOTALL):
            if token == "\r":
                self.column = 0
            elif token == "\n":
                self.row += 1
                while self.row >= len(self.lines):
                    self.lines.append([])
            elif token == "\x1b[A":
                self.row = max(0, self.row - 1)
            elif not token.startswith("\x1b"):
                if self.column >= self.columns:
                    self.wrapped += 1
                    self.row, self.column = self.row + 1, 0
                    while self.row >= len(self.lines):
                        self.lines.append([])
                line = self.lines[self.row]
                line.extend(" " * (self.column + 1 - len(line)))
                line[self.column] = token
                self.column += 1

    def text(self):
        return ["".join(line).rstrip() for line in self.lines]


def plain(raw):
    """The text without its colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", raw)


def on_a_terminal(desk, columns, *words, program=("-m", "kdrun"), **env):
    """Type a command at a terminal of that width; give the raw output and the screen it leaves."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(desk.folder)
        os.environ.update({"PYTHONPATH": ":".join(p or os.getcwd() for p in sys.path), "TERM": "xterm"})
        os.environ.update({"KDRUN_VERBOSE": "false", **env})
        for key in ("COLUMNS", "LINES", "KDRUN_OUTPUTS"):
            os.environ.pop(key, None)
        os.execv(sys.executable, [sys.executable, *program, *words, "device=cpu", "workers=0"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    raw = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        raw += part
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, raw.decode()
    screen = Screen(columns)
    screen.feed(raw.decode())
    return raw.decode(), screen


@pytest.mark.parametrize(("columns", "env"), [(80, {}), pytest.param(120, {"NO_COLOR": "1"}, marks=pytest.mark.slow)])
def test_a_bar_shows_epoch_terms_accuracy_speed_time_left_and_which_training(taught, columns, env):
    coloured, screen = on_a_terminal(taught, columns, "distill", *SMALL, "recipe.epochs=60", **env)
    raw = plain(coloured)
    bars = re.findall(r"training 1–2 of 2, seed 0: [^\r\n]*", raw)
    assert len(bars) > 3
    assert re.search(r"\d+%\|.+\| \[\d\d:\d\d<\d\d:\d\d, +[\d.]+k? img/s, epoch \d+/60\]", bars[-1])
    lines = re.findall(r"  (?:baseline|student) mlp: [^\r\n\x1b]*", raw)
    assert any(
        re.match(r"  student mlp: ce \d\.\d{4} kd \d\.\d{4} running train \d+\.\d\d% val \d+\.\d\d%", x) for x in lines
    )
    assert all(len(x) < columns for x in [*bars, *lines])
    left = screen.text()
    assert not [x for x in left if "img/s" in x or x.startswith("  student mlp")]  # no rest of a bar is left
    assert not [x for x in left if "…" in x]  # nor of a line about what was waited for
    ended = re.compile(r"(baseline|student) mlp seed 0: val \d+\.\d\d, test at that epoch \d+\.\d\d, epoch \d+ of")
    assert len([x for x in left if ended.match(x)]) == 2
    codes = re.findall(r"\x1b\[([\d;]+)m(teacher|baseline|student|Not tested)", coloured)
    roles = {("38;5;29", "teacher"), ("38;5;166", "baseline"), ("38;5;32", "student"), ("1", "Not tested")}
    assert set(codes) == (set() if env else roles)
    assert [x for x in left if x.startswith("results: ")]
    assert "epoch 60/60: loss" not in raw  # the bar shows it; the file has it
    log = (taught.latest / "kdrun.log").read_text()
    assert log.count("student mlp seed 0, epoch ") == 60


def test_a_log_line_in_mid_training_stands_on_a_line_of_its_own(taught):
    """Every epoch of a learner logs a warning while the bar stands there."""
    source = taught.folder / "loud.py"
    source.write_text(
        "import logging, sys\n"
        "from kdrun.training import cohort\n"
        "train = cohort.Learner.end_epoch\n"
        "def loud(self, *args):\n"
        "    logging.getLogger('kdrun').warning('LOUD %s', 'x' * 30)\n"
        "    return train(self, *args)\n"
        "cohort.Learner.end_epoch = loud\n"
        "from kdrun.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    raw, screen = on_a_terminal(taught, 80, "distill", *SMALL, program=[str(source)])
    loud = [line for line in screen.text() if "LOUD" in line]
    assert loud == ["LOUD " + "x" * 30] * 6
    assert "img/s" in raw and not [line for line in screen.text() if "img/s" in line]


EPOCH = r"^{}{} mlp seed 0, epoch (\d)/3: loss .*train .*val .*lr .*img/s$"


def test_off_a_terminal_there_is_no_bar_and_a_plain_line_per_training_and_with_verbose_per_epoch(taught):
    output = taught.type("distill", *SMALL, "seeds=3", KDRUN_VERBOSE="false")
    assert "\r" not in output and "\x1b" not in output and ": loss " not in output and "differs from" not in output
    lines = output.splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 120
    for role in ("baseline", "student"):
        ended = re.findall(rf"^{role} mlp seed (\d): val \S+, test at that epoch \S+, epoch \d of 3, ", output, re.M)
        assert ended == ["0", "1", "2"]
    log = (taught.latest / "kdrun.log").read_text()
    everything = taught.type("distill", *SMALL, "force=true", "verbose=true")
    for role in ("baseline", "student"):
        assert re.findall(EPOCH.format(r"\[.*\] ", role), log, re.M) == ["1", "2", "3"]
        assert re.findall(EPOCH.format("", role), everything, re.M) == ["1", "2", "3"]
    assert "differs from" in log and f"{everything.count(': loss ')} epochs" == "7 epochs"
    log = (taught.latest / "kdrun.log").read_text()
    kept = [line for line in everything.splitlines() if re.search(": (loss|found|training) ", line)]
    assert kept and all(line in log for line in kept)


def test_a_quiet_command_prints_the_verdict_the_table_and_the_folder_alone(finished):
    output = finished.type("distill", *SMALL, "quiet=true", KDRUN_VERBOSE="false")
    lines = output.splitlines()
    assert lines[0].startswith("The teacher is no better than chance: its test accuracy is") and lines[-1].startswith(
        "results: "
    )
    assert "learns from" not in output and "in the store" not in output and "page" not in output
    assert "role" in output and (finished.latest / "comparison.md").is_file()
    both = finished.type("distill", *SMALL, "quiet=true", "verbose=true", code=2)
    assert "leave one of them out" in both


def test_a_sweep_prints_a_line_per_cell_and_its_table(taught):
    words = ["distill", "-m", *SMALL, "T=1,4", "alpha=0.5"]
    output = taught.type(*words, KDRUN_VERBOSE="false")
    cells = re.findall(r"^(T=\d): \d+\.\d\d, [+-]\d+\.\d\d$", output, re.M)
    assert cells == ["T=1", "T=4"]
    assert "baseline mlp seed 0: val" in output and "student mlp T" not in output
    assert output.count("role ") == 0 and all((taught.latest / n / "comparison.md").is_file() for n in "01")
    assert (taught.latest / "kdrun.log").read_text().count(", epoch 3/3: loss") == 3


def test_where_there_is_no_bar_a_line_comes_from_time_to_time_with_the_time_left(monkeypatch, caplog):
    from kdrun.training import progress

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    left = ("4.0 s left", "all trainings: 9.0 s left")
    title = "training 1 of 7, seed 0"
    with caplog.at_level("INFO"), progress.Bar(title, {"a": "a"}, epochs=3, images=10, left=lambda: left) as bar:
        bar.step(5)
    assert caplog.messages == ["training 1 of 7, seed 0: epoch 1 of 3, 4.0 s left, all trainings: 9.0 s left"]


def test_a_plan_of_the_time_gives_one_for_each_training_and_trains_nothing(taught):
    before = sorted(taught.outputs.rglob("*"))
    output = taught.type("distill", "-m", *SMALL, "T=1,4", "plan=time")
    rows = re.findall(r"^(teacher|baseline|student) .* ([\d.]+ s|–)  (?:to train|found)", output, re.M)
    assert [(role, time == "–") for role, time in rows] == 2 * [
        ("teacher", True),
        ("baseline", False),
        ("student", False),
    ]
    assert re.search(r"^2 cells: 3 trainings, about [\d.]+ s in all$", output, re.M)
    assert sorted(taught.outputs.rglob("*")) == before


def test_the_history_is_a_row_per_epoch(finished):
    (folder,) = finished.outputs.glob("store/student-*")
    rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    assert rows[0] == [
        "epoch", "lr", "seconds", "images_per_second", "loss", "loss.ce", "loss.kd", "train_accuracy",
        "val_accuracy", "val_nll",
    ]  # fmt: skip
    assert [row[0] for row in rows[1:]] == ["1", "2", "3"]


def test_a_large_cohort_does_not_fill_the_terminal_and_its_log_is_whole(monkeypatch, caplog):
    from kdrun.training import progress

    shown = []
    monkeypatch.setattr(progress, "bars_off", lambda: True)
    made = progress.tqdm
    monkeypatch.setattr(
        progress, "tqdm", lambda *args, **kwargs: shown.append(kwargs.get("desc")) or made(*args, **kwargs)
    )
    names = {f"student {i}": f"student {i}" for i in range(30)}
    row = {"epoch": 1, "loss": 1.0, "lr": 0.1, "images_per_second": 9.0, "train_accuracy": 0.5}
    with caplog.at_level("DEBUG"), progress.Bar("a sweep", names, epochs=1, images=10) as bar:
        for name in names:
            bar.epoch(name, row, 1)
    assert len(shown) == 1 + progress.MOST_LINES + 1 + 1 and shown[-2] == "  and 18 more"
    assert all(f"student {i}, epoch 1/1" in caplog.text for i in range(30))
