"""What is printed on a terminal fits it; what is piped stays as it is."""

import io

import pytest

from kdrun import console

PROBLEMS = [
    "student=nope: there is no such student. Existing: digits_student, digits_teacher, external, fashion_cnn, mlp",
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
    text = "\n".join(["kdrun: 3 things are wrong with this command:", *(f"  - {problem}" for problem in PROBLEMS)])
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
