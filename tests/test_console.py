"""What is printed on a terminal fits it; what is piped stays as it is."""

import io
import sys
import time

import pytest

from kdrun import console
from kdrun.results.plots.style import STYLE

PROBLEMS = [
    "student=nope: there is no such student. Available: digits_student, digits_teacher, external, fashion_cnn, mlp",
    "T=-1: must lie in (0, inf)",
    "Not shown: +1.00 points (95% [-0.05, +1.87], p = 0.250, n = 3), 96.02 ± 1.11 against 95.02 ± 1.23",
]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_errors_end_their_lines_between_words_and_part_no_number(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = "\n".join(["kdrun: 3 problems with this command:", *(f"  - {problem}" for problem in PROBLEMS)])
    lines = console.fitted(text, Terminal()).split("\n")
    assert max(map(len, lines)) <= columns
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
    assert all(line.startswith(("kdrun: ", "  - ", "    ")) for line in lines)
    whole = ("[-0.05, +1.87]", "n = 3", "96.02 ± 1.11", "95.02 ± 1.23", "digits_teacher,")
    assert all(any(part in line for line in lines) for part in whole)


def test_what_is_piped_keeps_its_lines(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    assert console.refusal(*PROBLEMS).code == 2
    assert capsys.readouterr().err.splitlines()[1:] == [f"  - {problem}" for problem in PROBLEMS]


def test_colours_are_for_terminals_that_have_them_and_nobody_asked_for_none(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console.painted("a\n\nb", console.RED, Terminal()) == "\x1b[31ma\x1b[0m\n\n\x1b[31mb\x1b[0m"
    assert console.with_role("[1] student mlp seed 0", Terminal()) == "[1] \x1b[38;5;32mstudent\x1b[0m mlp seed 0"
    assert console.with_role("students differ from a student", Terminal()) == "students differ from a student"
    assert console.painted("a", console.RED, io.StringIO()) == "a"
    for name, value in (("TERM", "dumb"), ("NO_COLOR", "1")):
        with monkeypatch.context() as alone:
            alone.setenv(name, value)
            assert console.with_role(console.painted("student", console.BOLD, Terminal()), Terminal()) == "student"


def test_the_roles_have_the_colours_of_the_pictures_and_can_be_read_on_black_and_on_white():
    steps = (0, 95, 135, 175, 215, 255)  # of the cube of 6 × 6 × 6 colours from 16 on
    for role, code in console.ROLES.items():
        place = int(code.removeprefix("38;5;")) - 16
        shown = [steps[place // 36], steps[place // 6 % 6], steps[place % 6]]
        assert all(abs(x - y) < 50 for x, y in zip(shown, bytes.fromhex(STYLE[role][0][1:]), strict=True))
        linear = [((v / 255 + 0.055) / 1.055) ** 2.4 if v else 0.0 for v in shown]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert (luminance + 0.05) / 0.05 > 3 and 1.05 / (luminance + 0.05) > 3  # WCAG's contrast


def test_a_line_says_what_is_waited_for_and_is_erased(monkeypatch):
    monkeypatch.setattr(console, "APPEARS_SECONDS", 0.02)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with console.busy("reading"), console.busy("hashing 9 images"):
        end = time.monotonic() + 5
        while "hashing 9 images … 00:00" not in terminal.getvalue():
            assert time.monotonic() < end
            time.sleep(0.01)
    assert terminal.getvalue().endswith("\r") and not terminal.getvalue().split("\r")[-2].strip()
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with console.busy("what is done at once"):
        pass
    monkeypatch.setattr(sys, "stderr", piped := io.StringIO())
    with console.busy("off a terminal"):
        time.sleep(0.05)
    assert terminal.getvalue() == piped.getvalue() == ""
