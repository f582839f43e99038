"""What kdrun must know of Hydra's plugins: launchers, which run a sweep's cells, and sweepers, which choose them.

That is: which package each needs, how its cells share a machine, and whether its cells are known before the first
one has run. Imports torch only to count GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kdrun import checks, config
from kdrun.command import roles

GROUPS = ("hydra/launcher", "hydra/sweeper")  # read by sweeps alone
PLUGINS = {  # a choice -> the plugin that it needs, and the extra of kdrun that installs it
    "hydra/launcher=slurm": ("hydra_submitit_launcher", "slurm"),
    "hydra/launcher=submitit_slurm": ("hydra_submitit_launcher", "slurm"),
    "hydra/launcher=submitit_local": ("hydra_submitit_launcher", "slurm"),
    "hydra/launcher=gpus": ("hydra_joblib_launcher", "gpus"),
    "hydra/launcher=joblib": ("hydra_joblib_launcher", "gpus"),
    "hydra/sweeper=optuna": ("hydra_optuna_sweeper", "optuna"),
    "hydra/sweeper=search": ("hydra_optuna_sweeper", "optuna"),
}


def missing(group: str, name: str) -> str | None:
    """Return what to install if a choice needs a plugin that is not installed, or None."""
    plugin, extra = PLUGINS.get(f"{group}={name}", ("", ""))
    if not plugin or checks.installed(f"hydra_plugins.{plugin}"):
        return None
    package = plugin.replace("_", "-")
    return f"{group}={name}: needs {package}, which is not installed; type pip install 'kdrun[{extra}]'"


def in_turn(hydra: Any) -> bool:
    """Return whether the command's own process runs the cells, one after the other."""
    return _made_by(hydra.launcher) in ("BasicLauncher", "CohortLauncher")


def side_by_side(hydra: Any) -> bool:
    """Return whether the cells run at once on this machine, as children of the command's process."""
    return _made_by(hydra.launcher) == "JoblibLauncher"


def elsewhere(hydra: Any) -> bool:
    """Return whether the cells may run on other machines, with other devices."""
    return not in_turn(hydra) and not side_by_side(hydra)


def searches(hydra: Any) -> bool:
    """Return whether each cell is chosen by the results of those before it, so that cells are not known in advance."""
    return _made_by(hydra.sweeper) != "BasicSweeper"


def _made_by(node: DictConfig) -> str:
    return str(node.get("_target_", "")).rpartition(".")[2]


def sweep_only(verb: str, words: Sequence[str], problems: Sequence[str]) -> list[str]:
    """Refuse a launcher or sweeper in a command that is no sweep, unless `problems` already name it."""
    typed = [word for word in words if word.partition("=")[0] in GROUPS and not any(word in p for p in problems)]
    return [f"{word}: it is only for sweeps; type kdrun {verb.replace('_', ' ')} -m …" for word in typed]


def other_folder(words: Sequence[str], *, sweep: bool) -> list[str]:
    """Refuse a folder of results that this kind of command does not use: Hydra has one for a run, one for a sweep."""
    unused, used = ("hydra.run.dir", "hydra.sweep.dir")[:: 1 if sweep else -1]
    kind = "a sweep" if sweep else "a command without -m"
    return [
        f"{word}: has no effect in {kind}; type {used}={word.partition('=')[2]}"
        for word in words
        if word.lstrip("+").partition("=")[0] == unused
    ]


def clashing(verb: str, cfg: DictConfig) -> list[str]:
    """Return the settings of a cell that its launcher or sweeper cannot work with."""
    problems = []
    names = {group: cfg.hydra.runtime.choices[group] for group in GROUPS}
    if cfg.get("plan") and not in_turn(cfg.hydra):
        problems.append(f"plan=true: runs in this process; leave hydra/launcher={names['hydra/launcher']} out")
    if not searches(cfg.hydra):
        return problems
    sweeper = f"hydra/sweeper={names['hydra/sweeper']}"
    if verb in config.MEASURING:
        return [*problems, f"{sweeper}: {verb} trains nothing, so there is nothing to search; leave it out"]
    if cfg.plan:
        problems.append(f"plan=true: {sweeper} chooses each cell from earlier results; leave out one of the two")
    if roles.recipe(verb, cfg).protocol == "paper":
        problems.append(f"{sweeper}: searches by validation accuracy, but recipe.protocol=paper has no validation")
    elif not cfg.dataset.val_fraction:
        problems.append(f"{sweeper}: searches by validation accuracy, but dataset.val_fraction=0 has no validation")
    return problems


def _gpus() -> int:
    """Return the number of GPUs that this process sees, at least 1."""
    import torch

    return max(1, torch.cuda.device_count())


def _at_once(*, _root_: DictConfig) -> int:
    """Return the number of cells that the launcher runs at once, 1 by default."""
    return max(1, int(_root_.hydra.launcher.get("n_jobs") or 1))


def _heard(space: Mapping[str, str], *, _root_: DictConfig) -> dict[str, str]:
    """Return the part of a search space that this command reads: T and alpha only if a chosen loss has them."""
    if _root_.hydra.job.name != "distill":
        return {}
    losses = roles.values(_root_.loss)
    losses.pop("ce", None)
    return {key: str(values) for key, values in space.items() if any(checks.reads(n, key) for n in losses.values())}


def register() -> None:
    """Register the resolvers of conf/hydra/, and let hydra/sweeper=optuna mean conf/hydra/sweeper/search.yaml.

    A file with the plugin's own name would be merged into the plugin's schema, and Hydra would refuse it.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    OmegaConf.register_new_resolver("kdrun.gpus", _gpus, replace=True)
    OmegaConf.register_new_resolver("kdrun.at_once", _at_once, replace=True)
    OmegaConf.register_new_resolver("kdrun.heard", _heard, replace=True)
    Plugins.instance()  # imports all plugins first, so that the entry below replaces the plugin's own of this name
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node={"defaults": ["search"]}, provider="kdrun")
    if checks.installed("hydra_plugins.hydra_optuna_sweeper"):
        from kdrun.command import search

        add(search.SearchSweeper)


def add(plugin: type[Any]) -> None:
    """Register a launcher or a sweeper of kdrun's own with Hydra.

    Hydra accepts only plugins of the package hydra_plugins; the module named here need not exist.
    """
    from hydra.core.plugins import Plugins

    Plugins.instance().register(plugin)
    Plugins.instance().class_name_to_class[f"hydra_plugins.kdrun.{plugin.__name__}"] = plugin
