"""precision and compile: what this machine cannot do is refused before anything is made."""

import re


def test_tf32_is_refused_on_a_cpu_with_what_to_type(desk):
    output = desk.refuses("distill", "precision=tf32", "device=cpu")
    assert output.startswith("kdrun: precision=tf32: only GPUs support it")
    assert "type precision=fp32, or precision=bf16" in output
    assert "(in the cell precision=tf32)" in desk.refuses("distill", "-m", "precision=fp32,tf32", "device=cpu")


def test_compile_without_a_compiler_is_refused_with_what_is_missing(desk):
    output = desk.refuses("distill", "compile=true", "device=cpu", CXX="no-such-compiler")
    assert output.startswith(
        "kdrun: compile=true: torch.compile needs a C++ compiler, and CXX=no-such-compiler does not"
    )
    assert "compile=1: needs true or false" in desk.refuses("train", "teacher", "compile=1")


def test_compile_makes_every_training_another_one(desk):
    plain, fast = (
        re.findall(r"\b[0-9a-f]{12}\b", desk.runs("distill", "plan=true", "seeds=1", "device=cpu", *words))
        for words in ([], ["compile=true"])
    )
    assert len(plain) == len(fast) == 3
    assert not set(plain) & set(fast)
