"""A GPU for each cell: the locks, which need none."""

import subprocess
import sys

import torch

from kdrun.lifecycle.cell import claim, claimed

HOLD = "import sys, time; from pathlib import Path; from kdrun.lifecycle.cell import claim\n"
HOLD += "with claim(['a', 'b'], Path(sys.argv[1])) as index: print(index, flush=True); time.sleep(60)"


def test_two_cells_get_two_gpus_and_a_third_shares_the_first(tmp_path):
    ids = ["GPU-a", "GPU-b"]
    with claim(ids, tmp_path) as first, claim(ids, tmp_path) as second:
        assert [first, second] == [0, 1]
        with claim(ids, tmp_path) as third, claim(ids, tmp_path) as fourth:
            assert [third, fourth] == [0, 1]
    with claim(ids, tmp_path) as again:
        assert again == 0


def test_the_same_gpus_are_claimed_apart_whatever_numbers_a_command_sees_them_by(tmp_path):
    with claim(["GPU-a", "GPU-b"], tmp_path) as first, claim(["GPU-b", "GPU-a"], tmp_path) as second:
        assert (first, second) == (0, 0)


def test_a_killed_process_frees_its_gpu(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "0\n"
    with claim(["a", "b"], tmp_path) as beside:
        assert beside == 1
    holder.kill()
    holder.wait()
    with claim(["a", "b"], tmp_path) as index:
        assert index == 0


def test_auto_and_cuda_are_claimed_and_a_numbered_device_is_what_it_says(monkeypatch, tmp_path):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: type("Properties", (), {"uuid": f"GPU-{i}"}))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with claimed("auto") as first, claimed("cuda") as second, claimed("cuda:1") as third, claimed("cpu") as fourth:
        assert [first, second, third, fourth] == ["cuda:0", "cuda:1", "cuda:1", "cpu"]
    assert chosen == [0, 1]


def test_one_gpu_or_none_is_left_as_it_is(monkeypatch):
    with claimed("cpu") as device:
        assert device == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with claimed("auto") as device:
        assert device == "auto"
