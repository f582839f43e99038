import errno
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest

from kdrun.artifact import Damaged
from kdrun.files import CannotWrite, RunFailed, sweep_temporaries, write_atomic
from kdrun.locks import Holder
from kdrun.spec import Spec
from kdrun.store import Store
from tests.results.given import DIVERGED

SPEC = Spec(data={"digest": "a"}, model={}, objective={}, recipe={"lr": 0.1}, seed=0, precision="fp32")


def commit(root, spec=SPEC, content=b"weights"):
    store = Store(root)
    files = {"spec.json": spec.json().encode(), "model.safetensors": content}
    result = DIVERGED | {"fingerprint": spec.fingerprint, "seed": spec.seed}
    return store, store.commit(store.folder("student", "digits", "mlp", spec), files, result)


def test_what_is_committed_is_found_by_its_fingerprint_alone(tmp_path):
    store, artifact = commit(tmp_path)
    result = store.find(SPEC.fingerprint)
    assert result == artifact
    assert result.folder.name == f"student-digits-mlp-{SPEC.fingerprint}"
    assert store.folder("baseline", "other", "names", SPEC) == result.folder


def test_nothing_is_found_before_the_result_is_written(tmp_path):
    store, artifact = commit(tmp_path)
    (artifact.folder / "result.json").unlink()
    assert store.find(SPEC.fingerprint) is None


def test_a_damaged_file_is_named_and_no_folder_set_aside_is_ever_overwritten(tmp_path):
    for number, content in enumerate([b"first", b"second", b"third"], start=1):
        store, artifact = commit(tmp_path, content=content)
        (artifact.folder / "model.safetensors").write_bytes(b"weightz %d" % number)
        with pytest.raises(Damaged, match=r"model\.safetensors"):
            store.find(SPEC.fingerprint)
        assert artifact.folder.is_dir()  # finding moves nothing
        store.set_aside(artifact.folder)
        assert store.find(SPEC.fingerprint) is None
    kept = [tmp_path / f"{artifact.folder.name}.corrupt{end}" / "model.safetensors" for end in ("", ".2", ".3")]
    assert [path.read_bytes() for path in kept] == [b"weightz 1", b"weightz 2", b"weightz 3"]


@pytest.mark.parametrize("name", ["result.json", "spec.json", "model.safetensors"])
def test_what_cannot_be_read_is_not_taken_for_damage(tmp_path, monkeypatch, name):
    store, artifact = commit(tmp_path)
    opened = io.open

    def failing(file, *arguments, **more):
        if os.path.basename(file) == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(file, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", failing)
        with pytest.raises(RunFailed, match=r"cannot read .* \(Input/output error\); nothing was moved") as refused:
            store.find(SPEC.fingerprint)
    assert not isinstance(refused.value, Damaged)
    assert store.find(SPEC.fingerprint) == artifact


def test_the_nearest_spec_is_the_one_that_differs_in_the_fewest_keys(tmp_path):
    near = replace(SPEC, recipe={"lr": 0.2})
    far = replace(SPEC, recipe={"lr": 0.3}, seed=5, precision="bf16")
    store, _ = commit(tmp_path, near)
    commit(tmp_path, far)
    assert store.nearest("student", "digits", "mlp", SPEC) == (near.fingerprint, ["recipe.lr"])
    assert store.nearest("teacher", "digits", "mlp", SPEC) is None


KILLED = """
    import sys
    from pathlib import Path
    from kdrun.files import write_atomic
    write_atomic(Path(sys.argv[1]), b"the new content, longer than the old")
"""


@pytest.mark.parametrize("site", ["in_write", "before_rename", "after_rename"])
def test_a_kill_in_a_write_leaves_the_old_content_or_the_new(tmp_path, site):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    env = {**os.environ, "KDRUN_FAULT": f"{site}:1:kill"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(path)], env=env)
    assert done.returncode == -9
    expected = b"the new content, longer than the old" if site == "after_rename" else b"old"
    assert path.read_bytes() == expected
    sweep_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_removed_while_it_is_written_to_is_created_again_once(tmp_path, monkeypatch):
    path, times = tmp_path / "folder" / "file", 1

    def remove(place):
        nonlocal times
        if place == "before_rename" and times > 0:
            times -= 1
            shutil.rmtree(path.parent)

    monkeypatch.setattr("kdrun.files.faults.reach", remove)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new" and times == 0
    times = 2
    with pytest.raises(CannotWrite, match="its folder was removed or replaced, and what was saved there is lost"):
        write_atomic(path, b"newer")
    path.parent.write_text("a file in the folder's place")
    with pytest.raises(CannotWrite, match="its folder was removed or replaced, and what was saved there is lost"):
        write_atomic(path, b"newer")


def test_a_full_disk_names_the_path_and_keeps_the_old_content(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    program = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from kdrun.files import RunFailed, write_atomic
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_atomic(Path(sys.argv[1]), b"x" * 100_000)
        except RunFailed as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert str(path) in done.stdout and "MB free" in done.stdout
    assert path.read_bytes() == b"old"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000  # this process was not limited


HOLDER = """
    import sys, time
    from pathlib import Path
    from kdrun.store import Store
    with Store(Path(sys.argv[1])).locked("0123456789ab", lambda: None):
        print("holding", flush=True)
        time.sleep(60)
"""


def test_a_killed_holder_of_a_lock_is_taken_over(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "holding\n"
    store, waited = Store(tmp_path), []

    def waiting():
        waited.append(store.holder("0123456789ab"))
        holder.kill()

    with store.locked("0123456789ab", waiting):
        assert waited[0].pid == holder.pid and f"process {holder.pid} on " in str(waited[0])
        assert store.holder("0123456789ab").pid == os.getpid()
    holder.wait()
    assert store.holder("0123456789ab") is None


def test_who_holds_a_lock_is_said_with_the_day_if_it_is_another_and_survives_a_clock_that_is_behind():
    text = str(Holder(7, "fir", time.time() - 48 * 3600))
    assert re.fullmatch(r"process 7 on fir \(busy since \d{4}-\d\d-\d\d \d\d:\d\d, 48 h 00 min\)", text)
    assert "0.0 s)" in str(Holder(7, "fir", time.time() + 900))


def test_a_result_records_the_checksums_of_its_files(tmp_path):
    _, artifact = commit(tmp_path)
    assert set(json.loads((artifact.folder / "result.json").read_text())["checksums"]) == {
        "spec.json",
        "model.safetensors",
    }
