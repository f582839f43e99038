"""The default launcher of sweeps: train networks in cohorts, shared ones only once, and run each cell once trained.

With Hydra's own `hydra/launcher=basic`, cells run one after the other, and each trains its own networks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, env_override, setup_globals
from omegaconf import DictConfig, open_dict

from kdrun import config
from kdrun.command import plugins
from kdrun.command.composing import Loader, let_values_see, without_hydra
from kdrun.sweeps.run import VerbTask

log = logging.getLogger(__name__)


class CohortLauncher(BasicLauncher):
    """Hydra's basic launcher, changed to run each cell as soon as all its trainings are in the store."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train what the cells need in cohorts, and run each cell as soon as all its trainings are in the store."""
        setup_globals()
        assert self.config is not None
        try:
            return self._launch(job_overrides, initial_job_idx)
        finally:
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)

    def _launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from kdrun.lifecycle.task import point_latest
        from kdrun.sweeps.prefetch import prefetch

        done: dict[int, JobReturn] = {}
        composed = [self._cell(initial_job_idx + i, words) for i, words in enumerate(job_overrides)]
        cells = [cfg for cfg, _ in composed]
        assert isinstance(self.task_function, VerbTask)
        invocation = self.task_function.invocation
        if cells and invocation.verb not in config.MEASURING and not any(cfg.plan for cfg in cells):
            self._log_into_the_sweep(cells[0])
            point_latest(cells[0], Path(str(cells[0].hydra.sweep.dir)))
            before = HydraConfig.instance().cfg
            everywhere = set[str].intersection(*map(set, job_overrides))
            apart = [" ".join(word for word in words if word not in everywhere) for words in job_overrides]

            def complete(numbers: Sequence[int]) -> None:
                for number in numbers:
                    done[number] = self._run(cells[number])
                self._log_into_the_sweep(cells[0])

            named = [(cfg, values, words) for (cfg, values), words in zip(composed, apart, strict=True)]
            prefetch(invocation, named, complete)
            HydraConfig.instance().cfg = before
        for number, cfg in enumerate(cells):
            if number not in done:
                done[number] = self._run(cfg)
        return [done[number] for number in range(len(cells))]

    def _run(self, cfg: DictConfig) -> JobReturn:
        """Run one cell like Hydra's run_job, but without copying the configuration, which takes longer than the cell.

        kdrun writes .hydra itself, and refuses hydra.job.chdir.
        """
        assert self.hydra_context is not None and self.task_function is not None and self.config is not None
        hydra, callbacks = HydraConfig.instance(), self.hydra_context.callbacks
        before = hydra.cfg
        let_values_see(cfg)
        folder = Path(os.path.abspath(os.path.join(str(cfg.hydra.sweep.dir), str(cfg.hydra.sweep.subdir))))
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(folder)
        done = JobReturn(overrides=list(cfg.hydra.overrides.task), cfg=without_hydra(cfg), hydra_cfg=cfg,
                         working_dir=str(Path.cwd()), task_name=JobRuntime.instance().get("name"))  # fmt: skip
        try:
            folder.mkdir(parents=True, exist_ok=True)
            configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
            with env_override(dict(cfg.hydra.job.env_set)):
                callbacks.on_job_start(config=cfg, task_function=self.task_function)
                try:
                    done.return_value, done.status = self.task_function(done.cfg), JobStatus.COMPLETED
                except Exception as error:
                    done.return_value, done.status = error, JobStatus.FAILED
            callbacks.on_job_end(config=cfg, job_return=done)
        finally:
            hydra.cfg = before
        return done

    def _cell(self, number: int, words: Sequence[str]) -> tuple[DictConfig, dict[str, Any] | None]:
        """Return a cell's configuration and, if the preflight has composed it, its plain values."""
        assert self.hydra_context is not None and self.config is not None
        loader = self.hydra_context.config_loader
        cfg = loader.load_sweep_config(self.config, list(words))
        with open_dict(cfg):
            cfg.hydra.job.id = str(number)
            cfg.hydra.job.num = number
        kept = loader.kept(words) if isinstance(loader, Loader) else None
        return cfg, None if kept is None else kept.values

    def _log_into_the_sweep(self, cfg: DictConfig) -> None:
        """Direct the log to the sweep's folder while cohorts are trained; the cells have logs of their own."""
        folder = Path(str(cfg.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(folder.absolute())
        configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)


def register() -> None:
    """Register the launcher that conf/hydra/launcher/cohort.yaml names."""
    plugins.add(CohortLauncher)
