"""Words that refer to something that is not there, and keys that are typed twice: exit 2 and a sentence."""

import pytest


@pytest.mark.parametrize(("word", "sentence"), [
    ("T=${nope}", "T=${nope}: T: Interpolation key 'nope' not found"),
    ("T=${oc.env:NOPE}", "Environment variable 'NOPE' not found"),
    ("T=${oc.decode:'[1'}", "missing BRACKET_CLOSE"),
    ("T=${T}", "Recursive interpolation"),
    ("hydra.run.dir=${nope}", "hydra.run.dir=${nope}: hydra.run.dir: Interpolation key 'nope' not found"),
])  # fmt: skip
def test_a_reference_that_leads_nowhere_is_named(desk, word, sentence):
    assert sentence in desk.refuses("distill", word)


def test_a_key_of_a_sweep_is_typed_once(desk):
    assert "T=x and T=1,2: T is given 2 times; in a sweep give it once" in desk.refuses("distill", "-m", "T=x", "T=1,2")
    assert "T=x: needs a number" in desk.refuses("distill", "-m", "T=x", "T=1", "alpha=0.1,0.2")


def test_a_folder_whose_name_begins_a_reference_is_refused(tmp_path):
    from tests.cli.conftest import Desk

    (tmp_path / "${T").mkdir()
    assert "contains ${ without }" in Desk(tmp_path / "${T").refuses("distill")
