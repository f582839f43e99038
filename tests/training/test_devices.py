import pytest
import torch

from kdrun.training import devices

CPU = torch.device("cpu")


def test_auto_is_the_first_gpu_or_the_cpu():
    expected = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert devices.resolve_device("auto") == torch.device(expected)
    assert devices.resolve_device("cpu") == CPU


def test_a_gpu_that_is_not_here_is_refused_with_what_to_type():
    with pytest.raises(ValueError, match=r"device=cuda:63: this machine has \d+ CUDA devices.*device=cpu"):
        devices.resolve_device("cuda:63")


def test_a_named_precision_is_taken_and_auto_asks_the_hardware():
    assert devices.resolve_precision("fp32", CPU) == "fp32"
    assert devices.resolve_precision("bf16", CPU) == "bf16"
    assert devices.resolve_precision("auto", CPU) in ("fp32", "bf16")


def test_tf32_is_refused_where_nothing_computes_it():
    with pytest.raises(ValueError, match=r"precision=tf32: only GPUs support it.*device=cpu; type precision=fp32"):
        devices.resolve_precision("tf32", CPU)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp32"])
def test_float32_is_what_was_asked_for_whichever_of_torchs_switches_is_read(precision):
    devices.set_float32(precision)
    tf32 = precision == "tf32"
    backends = torch.backends
    new = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    assert {part.fp32_precision for part in new} == {"tf32" if tf32 else "ieee"}
    # the old switches raise where they contradict the new ones, and torch.export reads them
    assert backends.cuda.matmul.allow_tf32 is tf32
    assert backends.cudnn.allow_tf32 is tf32
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    devices.set_float32("fp32")


def test_only_bf16_computes_in_half_precision():
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    for precision, dtype in (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        with devices.autocast(precision, CPU):
            assert layer(x).dtype == dtype


def test_the_generators_state_is_saved_and_set():
    saved = devices.save_rng(CPU)
    a = torch.rand(3)
    devices.restore_rng(saved, CPU)
    assert torch.equal(torch.rand(3), a)


def test_the_cpu_is_named_by_its_architecture():
    assert devices.describe(CPU).startswith("cpu (")
