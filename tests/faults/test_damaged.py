"""A damaged artifact is set aside only by a command that may train it anew; commands that read it move nothing."""

import pytest

from tests.cli.conftest import Desk


@pytest.fixture
def desk(tmp_path):
    """An empty folder to type commands in."""
    return Desk(tmp_path)


def test_only_a_command_that_trains_sets_a_damaged_artifact_aside(desk):
    words = ["train", "baseline", "student=mlp", "seeds=1", "recipe.epochs=1", "device=cpu"]
    desk.runs(*words)
    (folder,) = (desk.folder / "outputs" / "store").glob("baseline-*")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    picture = desk.write("digit.png")
    for reading in (
        ["predict", "latest", str(picture), "--role", "baseline"],
        ["evaluate", "latest"],
        [*words, "plan=true"],
    ):
        done = desk.type(*reading)
        output = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 3 and "is damaged (model.safetensors); nothing was moved" in output, output
        assert "Traceback" not in output and folder.is_dir()
    done = desk.type(*words)
    assert (
        done.returncode == 3
        and f"it was moved aside as outputs/store/{folder.name}.corrupt" in done.stderr + done.stdout
    )
    assert desk.runs(*words)
    assert weights.read_bytes() == content and folder.with_name(f"{folder.name}.corrupt").is_dir()
