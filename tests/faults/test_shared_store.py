"""Several users and one store: what a group may write works for all, the rest is refused; reading always works."""

import os
import stat
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from tests import warm

GROUP, ANNA, BEN = 54320, 54321, 54322  # nobody's on any machine
TEACHER = ["train", "teacher", "teacher.recipe.epochs=1", "device=cpu"]
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be two other users")


@pytest.fixture
def shared():
    """Yield a folder that a group shares, in which two users type commands."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chown(folder, ANNA, GROUP)
        folder.chmod(0o2775)
        yield folder


def typed(folder, user, *words, code=0, **variables):
    """Type a command as a user, expect its exit code, and return what it printed."""
    done = warm.type_(folder, *words, user=(user, GROUP), HOME=str(folder), **variables)
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == code and "Traceback" not in text, text
    return text


def allow(folder, bits):
    """Set the permission to write of everything in a folder."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222 | bits)


@needs_root
def test_a_group_shares_a_store_as_umask_and_permissions_allow(shared):
    store = shared / "outputs" / "store"
    typed(shared, ANNA, *TEACHER)
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o777 for path in (shared / "outputs").rglob("*")}
    assert modes == {0o775, 0o664} and list((store / ".locks").iterdir())
    assert ": training " in typed(shared, BEN, *TEACHER, "force=true")
    (lock,) = (store / ".locks").iterdir()
    lock.chmod(0o644)
    sentence = typed(shared, BEN, *TEACHER, "force=true", code=3)
    assert (
        f".locks/{lock.name} belongs to user {ANNA}, and you cannot write to it" in sentence
        and "chmod -R g+rwX" in sentence
    )
    lock.chmod(0o664)
    (artifact,) = store.glob("teacher-*")
    artifact.chmod(0o755)
    sentence = typed(shared, ANNA, *TEACHER, "force=true", code=3)
    assert f"cannot remove outputs/store/{artifact.name}: " in sentence
    assert f"belongs to user {BEN}, and you cannot write to it" in sentence


@needs_root
def test_what_may_only_be_read_is_read_and_nothing_is_written_there(shared):
    typed(shared, ANNA, *TEACHER)
    image = shared / "image.png"
    Image.new("L", (8, 8), 99).save(image)
    outputs, own = shared / "outputs", shared / "own"
    own.mkdir()
    os.chown(own, BEN, GROUP)
    allow(outputs / "store", 0)
    assert "Δ test" in typed(shared, ANNA, "evaluate", "latest", "device=cpu")  # the table lies beside the store
    allow(outputs, 0)
    before = sorted(outputs.rglob("*"))
    typed(shared, BEN, "predict", "latest", str(image), "role=teacher")
    typed(shared, BEN, "report", "--to", str(own / "report"))
    mine = [str((outputs / "latest").resolve()), f"outputs={own}", "device=cpu"]
    typed(shared, BEN, "export", *mine, f"to={own / 'exported'}", "check=false", "role=teacher")
    assert "cost are stored beside each network, but" in typed(shared, BEN, "evaluate", *mine, "cost=true", code=2)
    sentence = typed(shared, BEN, "evaluate", "latest", "device=cpu", code=2)
    assert "choose a folder with outputs=DIR, and name the run by its folder" in sentence
    assert "cannot be written" in typed(shared, BEN, *TEACHER, code=2)
    assert sorted(outputs.rglob("*")) == before
