"""The sweeper of conf/hydra/sweeper/search.yaml, which ends well even if all trials fail. Needs kdrun[optuna]."""

from __future__ import annotations

import logging

from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

log = logging.getLogger(__name__)


class SearchSweeper(OptunaSweeper):  # type: ignore[misc]
    """Optuna's sweeper without its console lines, and without a traceback if no trial has a value."""

    def sweep(self, arguments: list[str]) -> None:
        """Search; the table of the sweep lists what failed."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it logs to the console itself
        try:
            super().sweep(arguments)
        except ValueError as error:  # raised at the end, by the question for the best trial
            if "No trials are completed" not in str(error):
                raise
            log.error("kdrun: no trial of this search could be measured; the table has the reasons")
