"""What a command composes once is what Hydra composes each time."""

import pickle

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.types import RunMode
from omegaconf import OmegaConf

from kdrun import config
from kdrun.command import composing, groups, preflight, writable
from kdrun.sweeps import launcher

TYPED = {
    RunMode.RUN: [
        ["dataset=synthetic", "T=3", "recipe.epochs=7", "hydra.run.dir=here", "hydra.job.env_copy=[HOME]", "alpha=0.5"],
        ["loss=[kd,dist]", "loss.kd.weight=2", "student=mlp", "~sweep", "+loss.kd.x=1", "hydra.mode=RUN"],
        [
            "recipe@teacher.recipe=quick",
            "students=[mlp,digits_student]",
            "columns=[nll]",
            "outputs='a b'",
            "T=2",
            "T=5",
        ],
    ],
    RunMode.MULTIRUN: [
        [
            "T=1,2",
            "loss=kd,dist",
            "student=mlp",
            "hydra/launcher=basic",
            "hydra.mode=MULTIRUN",
            "+hydra.job.env_set.N='${hydra.job.num}'",
        ],
    ],
}


@pytest.fixture(autouse=True)
def registered():
    groups.register([config.CONF])
    launcher.register()


def test_choices_that_are_composed_once_and_values_set_in_a_copy_give_hydras_configuration():
    loader = composing.Loader()
    hydras = ConfigLoaderImpl(create_config_search_path(str(config.CONF)))
    with composing.hydra_with(loader):
        for mode, commands in TYPED.items():
            for words in commands:
                expected = hydras.load_configuration("distill", words, mode)
                for _ in range(2):  # composed, and from what was composed
                    cfg = loader.load_configuration("distill", words, mode)
                    assert OmegaConf.to_yaml(cfg) == OmegaConf.to_yaml(expected), words
                    assert OmegaConf.get_type(cfg, "recipe") is config.Recipe and OmegaConf.is_struct(cfg)
                    cfg.recipe.epochs, cfg.hydra.job.num = 99, 99  # a copy
        master = loader.load_configuration("distill", TYPED[RunMode.MULTIRUN][0], RunMode.MULTIRUN)
        cells = ["T=1", "loss=kd", "student=mlp"], ["T=2", "loss=dist", "student=mlp"]
        expected = [OmegaConf.to_yaml(hydras.load_sweep_config(master, cell)) for cell in cells]
        assert [OmegaConf.to_yaml(loader.load_sweep_config(master, cell)) for cell in cells] == expected
    preflight.check("distill", TYPED[RunMode.MULTIRUN][0], sweep=True, dirs=[config.CONF], loader=loader)
    with composing.hydra_with(loader):
        for number, (cell, hydras_cell) in enumerate(zip(cells, (expected[0], expected[-1]), strict=True)):
            kept = loader.kept(cell)
            assert kept is not None and loader.load_sweep_config(master, cell) is kept.cfg
            assert kept.values == OmegaConf.to_container(composing.without_hydra(kept.cfg), resolve=True)
            assert kept.cfg.hydra.job.num == 3 * number  # which Hydra leaves to the launcher
            kept.cfg.hydra.job.num = "???"
            assert OmegaConf.to_yaml(kept.cfg) == hydras_cell
    assert pickle.loads(pickle.dumps(loader)).kept(cells[0]) is None  # or each job of a cluster would carry all cells


def kept(*words):
    """Which cells of a sweep are kept, in their order."""
    loader = composing.Loader()
    checked = preflight.check("distill", words, sweep=True, dirs=[config.CONF], loader=loader)
    assert checked.problems == []
    own = [[word for word in cell.typed if not word.startswith("hydra.")] for cell in checked.cells]
    return [loader.kept(words) is not None for words in own]


def test_cells_that_need_a_configuration_of_their_own_are_composed_again():
    assert kept("T=1,2", "seeds=1") == kept("T=1,2", "hydra.sweep.dir=at${T}") == [True, True]
    assert kept("T=1,1,2") == [False, False, True]  # alike
    assert kept("seed=1,2", "data_timeout=${now:%S}") == [False, False]  # another value whenever it is resolved
    assert kept("seed=1,2", f"hydra.searchpath=[{config.CONF}]") == [False, False]


def test_every_cells_own_folder_is_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "at2.0").touch()
    words = ["T=1,2", "hydra.sweep.dir=at${T}/s"]
    checked = preflight.check("distill", words, sweep=True, dirs=[config.CONF])
    assert "at2.0 is a file" in " ".join(writable.problems(checked.cells, sweep=True))


def test_a_sweep_composes_what_its_cells_choose_once_and_each_is_checked(monkeypatch):
    composed = []
    whole = ConfigLoaderImpl._load_configuration_impl

    def load(self, name, words, *rest, **more):
        composed.append(words)
        return whole(self, name, words, *rest, **more)

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", load)
    loader = composing.Loader()
    words = ["dataset=synthetic", "T=1,2,0,3", "seeds=1", "recipe.epochs=2,2.0"]
    checked = preflight.check("distill", words, sweep=True, dirs=[config.CONF], loader=loader)
    assert composed == [["dataset=synthetic"]]
    assert [cell.cfg.T for cell in checked.cells] == [1, 1, 2, 2, 0, 0, 3, 3]
    assert checked.problems == [
        "recipe.epochs=2.0: needs a whole number (default: 40) (in the cell T=1 recipe.epochs=2.0 and 3 more)",
        "T=0: must lie in (0, inf) (in the cell T=0 recipe.epochs=2 and 1 more)",
    ]


def test_what_is_written_beside_a_run_is_what_omegaconf_writes():
    content = {
        "a": ["1", 1, 1.5, "yes", "1e3", None, True, "é\n b", "x" * 200],
        "b": {"c": "${d}", "e": {}, "f": "a: b #"},
    }
    assert composing.as_yaml(content) == OmegaConf.to_yaml(OmegaConf.create(content))
