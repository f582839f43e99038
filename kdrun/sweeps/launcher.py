"""The default launcher of sweeps: train what the cells share once, as cohorts, then run the cells.

With Hydra's own `hydra/launcher=basic` each cell trains by itself, one after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, setup_globals
from omegaconf import DictConfig, open_dict

from kdrun import config
from kdrun.command import plugins
from kdrun.sweeps.run import VerbTask

log = logging.getLogger(__name__)


class CohortLauncher(BasicLauncher):
    """Hydra's basic launcher, run after all trainings of the cells are in the store."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train everything the cells need together, then run them in turn: each finds its trainings in the store."""
        from kdrun.lifecycle.task import point_latest
        from kdrun.sweeps.prefetch import prefetch

        setup_globals()
        cells = [self._cell(initial_job_idx + i, words) for i, words in enumerate(job_overrides)]
        assert isinstance(self.task_function, VerbTask)
        invocation = self.task_function.invocation
        if cells and invocation.verb not in config.MEASURING and not any(cfg.plan for cfg in cells):
            self._log_into_the_sweep(cells[0])
            point_latest(cells[0], Path(str(cells[0].hydra.sweep.dir)))
            before = HydraConfig.instance().cfg
            everywhere = set[str].intersection(*map(set, job_overrides))
            apart = [" ".join(word for word in words if word not in everywhere) for words in job_overrides]
            prefetch(invocation, list(zip(cells, apart, strict=True)))
            HydraConfig.instance().cfg = before
        return super().launch(job_overrides, initial_job_idx)

    def _cell(self, number: int, words: Sequence[str]) -> DictConfig:
        assert self.hydra_context is not None and self.config is not None
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(words))
        with open_dict(cfg):
            cfg.hydra.job.id = str(number)
            cfg.hydra.job.num = number
        return cfg

    def _log_into_the_sweep(self, cfg: DictConfig) -> None:
        """Write the log of what is trained together beside the sweep's table; the cells have logs of their own."""
        folder = Path(str(cfg.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(folder.absolute())
        configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)


def register() -> None:
    """Register the launcher that conf/hydra/launcher/cohort.yaml names."""
    plugins.add(CohortLauncher)
