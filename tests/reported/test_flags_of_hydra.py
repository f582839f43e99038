"""Flags of Hydra's that do not go together are refused in a sentence, not with its traceback."""

import pytest

REFUSED = [
    ("distill --resolve", "--resolve flag can only be used in conjunction with --cfg"),
    ("distill --resolve -m T=1,2", "--resolve flag can only be used in conjunction with --cfg"),
    ("distill --cfg hydra --resolve", "type --cfg all --resolve"),
    ("distill --cfg job --info defaults", "only one of --run, --multirun, --cfg, --info and --hydra-help"),
    ("distill --run --cfg job", "only one of --run, --multirun, --cfg, --info and --hydra-help"),
    ("distill --hydra-help T=2", "Could not override 'T'."),
    ("distill --package recipe", "add --cfg job"),
    ("distill --cfg job --package nope", "package 'nope' not found in config"),
    ("distill -sc", "install=, uninstall= and query="),
    ("distill -sc --run", "only one of them"),
    ("-sc install=tcsh", "bash, fish, zsh"),
]


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_flags_that_do_not_go_together_are_refused_in_a_sentence(desk, line, message):
    assert message in desk.refuses(*line.split())


def test_info_alone_leaves_the_setting_behind_it_a_setting(desk):
    assert "T: 2.0" in desk.runs("distill", "T=2", "--info")
