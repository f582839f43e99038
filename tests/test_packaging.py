"""An installed wheel works like a checkout: conf/ comes along, and a user's own ./conf is found."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The content of the wheel, unpacked where Python will look first."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(installed, cwd, *words):
    env = {**os.environ, "PYTHONPATH": str(installed)}
    code = "import kdrun, sys; assert kdrun.__file__.startswith(sys.argv[1]), kdrun.__file__; del sys.argv[1]; "
    code += "from kdrun.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, str(installed), *words], cwd=cwd, env=env, capture_output=True, text=True
    )


def test_every_configuration_file_is_in_the_wheel(installed):
    inside = {p.relative_to(installed / "kdrun" / "conf") for p in (installed / "kdrun" / "conf").rglob("*.yaml")}
    assert inside == {p.relative_to(ROOT / "conf") for p in (ROOT / "conf").rglob("*.yaml")}


def test_distill_works_from_the_wheel_in_an_empty_folder(installed, tmp_path):
    done = run(
        installed,
        tmp_path,
        "distill",
        "seeds=1",
        "recipe.epochs=1",
        "teacher.recipe.epochs=1",
        "device=cpu",
        "report=true",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("comparison.md", "report.html"):
        assert (tmp_path / "outputs" / "latest" / name).is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["outputs"]


def test_a_folder_conf_of_the_users_own_adds_choices_to_the_wheel(installed, tmp_path):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(
        "# a network of my own\nuse: mlp.Mlp\nhidden: [7]\ndropout: 0.0\nweights: null\n"
    )
    done = run(installed, tmp_path, "distill", "student=mine", "plan=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine" in done.stdout
