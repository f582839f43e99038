"""docs/adding-a-method.md does what it says: its files, put where it says, pass the tests it names."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kdrun.losses import contract
from kdrun.losses.base import Term
from tests.cli.conftest import SHORT, Desk

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "adding-a-method.md"
TEXT = DOC.read_text(encoding="utf-8")
BLOCKS = re.finditer(r"```(?:python|yaml)\n(.*?)```", TEXT, re.DOTALL)
NAMED = r"`((?:kdrun|conf|tests)/\S+|my_loss\.py)`[:,]? "
FILES = {re.findall(NAMED, TEXT[: block.start()].replace("\n", " "))[-1]: block[1] for block in BLOCKS}
"""Each file that the documentation spells out: the path named last before it, and its content."""
MINE = ("my_loss.py", "conf/loss/cosine.yaml")
KDRUNS = ("kdrun/losses/skew_kl.py", "conf/loss/skew_kl.yaml", "tests/losses/test_skew_kl.py")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty folder to type commands in."""
    return Desk(tmp_path)


def run(*words: str, cwd: Path, package: Path) -> str:
    """What a command prints, with the package of that folder; it must succeed."""
    env = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "COLUMNS": "500"}
    done = subprocess.run([sys.executable, "-m", *words], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the documentation's reader works in, with the three files of the example added."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("kdrun", "conf"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "tests" / "losses").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for test in ("__init__.py", "losses/__init__.py", "losses/given.py", "losses/test_every_loss.py"):
        if (ROOT / "tests" / test).is_file():
            shutil.copy(ROOT / "tests" / test, copy / "tests" / test)
    for name in KDRUNS:
        assert not (ROOT / name).exists(), f"{name} is no longer an example: kdrun has it"
        (copy / name).write_text(FILES[name], encoding="utf-8")
    return copy


def test_the_examples_are_two_files_and_three_and_their_python_is_under_forty_lines() -> None:
    assert tuple(FILES) == (*MINE, *KDRUNS, "conf/loss/kd_soft.yaml")
    for name in (MINE[0], KDRUNS[0]):
        assert len([line for line in FILES[name].splitlines() if line.strip()]) < 40


def test_a_loss_of_ones_own_is_listed_checked_and_trained_as_the_page_types_it(desk: Desk) -> None:
    for name in MINE:
        desk.write(name, FILES[name])
    commands = re.findall(r"^kdrun (.*?)(?: {2,}#.*)?$", TEXT.partition("## A loss of kdrun")[0], re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        words = shlex.split(command)
        added = [] if words[0] == "losses" else SHORT if "-m" in words else ["plan=true"]
        output = desk.runs(*words, *added, COLUMNS="160")
        if words == ["losses"]:
            assert re.search(r"response +cosine +alpha +Cosine: mean .* \(your own: conf/loss/cosine.yaml\)", output)
        elif words[:2] == ["losses", "check"]:
            assert re.search(r"^\d+ checks: \d+ ok, 0 failed, 1 not applicable", output, re.MULTILINE)
            assert len(re.findall(r"^(?:ok|–) ", output, re.MULTILINE)) == len(contract.CHECKS)
        elif "-m" in words:
            assert re.search(r"^\[kd,cosine\] .* done", output, re.MULTILINE)
        else:
            assert "0.5·CE(y, p_s) + 0.5·mean (1 − cos(z_s, z_t) − 0)₊" in output


def test_the_commands_that_are_named_are_those_that_are_tested_here() -> None:
    for command in (
        "pytest -n 0 tests/losses/test_skew_kl.py ",
        "pytest -n 0 tests/losses/test_every_loss.py -k skew_kl ",
    ):
        assert f"python -m {command}" in TEXT


def test_the_example_passes_its_own_tests_and_the_contract(checkout: Path) -> None:
    words = (
        "pytest",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "tests/losses/test_skew_kl.py",
        "tests/losses/test_every_loss.py",
    )
    printed = run(*words, "-k", "skew_kl", cwd=checkout, package=checkout)
    passed = re.search(r"(\d+) passed", printed)
    assert passed is not None
    assert int(passed[1]) >= 5 + len(contract.CHECKS)  # its own, and the contract's
    assert "failed" not in printed and "error" not in printed


def test_the_example_is_listed_with_its_formula_and_settings(checkout: Path, tmp_path: Path) -> None:
    assert re.search(r"response +skew_kl +alpha +Skew KL: T²", run("kdrun", "losses", cwd=tmp_path, package=checkout))
    assert "share: 0.1  # λ; the paper" in run("kdrun", "losses", "skew_kl", cwd=tmp_path, package=checkout)


def test_a_yaml_in_a_folder_of_ones_own_makes_a_variant(tmp_path: Path) -> None:
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "kd_soft.yaml").write_text(FILES["conf/loss/kd_soft.yaml"], encoding="utf-8")
    assert "kd_soft" in run("kdrun", "losses", cwd=tmp_path, package=ROOT)
    planned = run("kdrun", "distill", "loss=kd_soft", "plan=true", cwd=tmp_path, package=ROOT)
    assert "minimises 0.1·CE(y, p_s) + 0.9·2²·KL(p_t ‖ p_s; T=2)" in planned


def test_the_example_is_in_the_projects_own_style(checkout: Path) -> None:
    (checkout / MINE[0]).write_text(FILES[MINE[0]], encoding="utf-8")
    for name in (*KDRUNS, MINE[0]):
        if name.endswith(".py"):
            run("ruff", "check", name, cwd=checkout, package=checkout)
            run("ruff", "format", "--check", name, cwd=checkout, package=checkout)


def test_every_file_and_name_that_the_documentation_points_to_exists() -> None:
    for file in re.findall(r"\| `(\w+\.py)` \|", TEXT):
        assert (ROOT / "kdrun" / "losses" / file).is_file(), file
    base = (ROOT / "kdrun" / "losses" / "base.py").read_text(encoding="utf-8")
    declared = [name for name, kind in Term.__annotations__.items() if "ClassVar" in str(kind)]
    methods = [name for name in vars(Term) if callable(getattr(Term, name)) and not name.startswith("_")]
    assert {"logits_only", "peers"} <= set(declared) and {"together", "memory"} <= set(methods)
    for name in ("SoftTerm", "per_sample", "at_least_float32", *declared, *methods):
        assert name in TEXT, name
        assert name in base
    assert not re.search(r"(?<![\w.])/(?:work|tmp|home|root)\b", TEXT)
