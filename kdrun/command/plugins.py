"""What runs a sweep's cells, and what chooses them: in turn here, side by side, or elsewhere. Knows no torch.

Hydra's plugins do the work; here stands what kdrun has to know of them: what each needs installed, how its
cells share a machine, and whether its cells are known before the first of them has run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdrun import checks, config

if TYPE_CHECKING:
    from omegaconf import DictConfig

GROUPS = ("hydra/launcher", "hydra/sweeper")  # read by sweeps alone
PLUGINS = {  # a choice -> the plugin that it stands on, and the extra of kdrun that installs it
    "hydra/launcher=slurm": ("hydra_submitit_launcher", "slurm"),
    "hydra/launcher=submitit_slurm": ("hydra_submitit_launcher", "slurm"),
    "hydra/launcher=submitit_local": ("hydra_submitit_launcher", "slurm"),
    "hydra/launcher=gpus": ("hydra_joblib_launcher", "gpus"),
    "hydra/launcher=joblib": ("hydra_joblib_launcher", "gpus"),
    "hydra/sweeper=optuna": ("hydra_optuna_sweeper", "optuna"),
    "hydra/sweeper=search": ("hydra_optuna_sweeper", "optuna"),
}


def missing(group: str, name: str) -> str | None:
    """Return what to install where a choice stands on a plugin that is not here."""
    plugin, extra = PLUGINS.get(f"{group}={name}", ("", ""))
    if not plugin or checks.installed(f"hydra_plugins.{plugin}"):
        return None
    package = plugin.replace("_", "-")
    return f"{group}={name}: needs {package}, which is not installed; type pip install 'kdrun[{extra}]'"


def in_turn(hydra: Any) -> bool:
    """Whether the command's own process runs the cells, one after the other."""
    return _made_by(hydra.launcher) in ("BasicLauncher", "CohortLauncher")


def side_by_side(hydra: Any) -> bool:
    """Whether the cells run at once on this machine, as children of the command's process."""
    return _made_by(hydra.launcher) == "JoblibLauncher"


def elsewhere(hydra: Any) -> bool:
    """Whether the cells may run on other machines, of which this one's devices say nothing."""
    return not in_turn(hydra) and not side_by_side(hydra)


def searches(hydra: Any) -> bool:
    """Whether the next cell is chosen by what came of those before it, so that cells are known as they come."""
    return _made_by(hydra.sweeper) != "BasicSweeper"


def _made_by(node: DictConfig) -> str:
    return str(node.get("_target_", "")).rpartition(".")[2]


def in_vain(verb: str, words: Sequence[str], said: Sequence[str]) -> list[str]:
    """Refuse a launcher or a sweeper typed for a command that is no sweep, but where it was `said` to be wrong."""
    spoken = verb.replace("_", " ")
    typed = [word for word in words if word.partition("=")[0] in GROUPS and not any(word in other for other in said)]
    return [f"{word}: only sweeps read it; type kdrun {spoken} -m …" for word in typed]


def clashing(verb: str, cfg: DictConfig) -> list[str]:
    """Refuse what a cell's launcher or sweeper could not do."""
    found = []
    names = {group: cfg.hydra.runtime.choices[group] for group in GROUPS}
    if cfg.get("plan") and not in_turn(cfg.hydra):
        found.append(f"plan=true: is shown here and now; leave hydra/launcher={names['hydra/launcher']} out")
    if not searches(cfg.hydra):
        return found
    sweeper = f"hydra/sweeper={names['hydra/sweeper']}"
    if verb in config.MEASURING:
        return [*found, f"{sweeper}: {verb} trains nothing that could be searched; type it for a verb that trains"]
    if cfg.plan:
        found.append(f"plan=true: {sweeper} chooses each cell by what came of the last; leave one or the other out")
    recipe = cfg.teacher.recipe if verb == "train_teacher" else cfg.recipe
    if recipe.protocol == "paper":
        found.append(f"{sweeper}: searches by validation accuracy, and recipe.protocol=paper holds nothing out")
    elif not cfg.dataset.val_fraction:
        found.append(f"{sweeper}: searches by validation accuracy, and dataset.val_fraction=0 holds nothing out")
    return found


def resolvers() -> None:
    """Register what the files under conf/hydra/ write as ${kdrun.…}."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("kdrun.gpus", _gpus, replace=True)
    OmegaConf.register_new_resolver("kdrun.at_once", _at_once, replace=True)
    OmegaConf.register_new_resolver("kdrun.heard", _heard, replace=True)


def _gpus() -> int:
    """Return the number of GPUs that this process sees, at least 1."""
    import torch

    return max(1, torch.cuda.device_count())


def _at_once(*, _root_: DictConfig) -> int:
    """Return the number of cells that the launcher runs at once; 1 where it does not say."""
    return max(1, int(_root_.hydra.launcher.get("n_jobs") or 1))


def _heard(space: Mapping[str, str], *, _root_: DictConfig) -> dict[str, str]:
    """Keep of a search space what this command reads: T and alpha only where a chosen loss has them."""
    from omegaconf import OmegaConf

    if _root_.hydra.job.name != "distill":
        return {}
    losses: Any = OmegaConf.to_container(_root_.loss, resolve=False)
    losses.pop("ce", None)
    return {key: str(values) for key, values in space.items() if "${" + key + "}" in repr(losses)}


def register() -> None:
    """Let hydra/sweeper=optuna be conf/hydra/sweeper/search.yaml.

    A file of the plugin's own name is refused by Hydra, which would hold it against the plugin's schema.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    resolvers()
    Plugins.instance()  # which imports them all: what they store under this name comes first
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node={"defaults": ["search"]}, provider="kdrun")
    if checks.installed("hydra_plugins.hydra_optuna_sweeper"):
        from kdrun.command import search

        search.register()
