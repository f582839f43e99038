"""The sweeper of conf/hydra/sweeper/search.yaml; it ends without an error if all trials fail. Needs kdrun[optuna]."""

from __future__ import annotations

import logging

from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

log = logging.getLogger(__name__)


class SearchSweeper(OptunaSweeper):  # type: ignore[misc]
    """Optuna's sweeper without its console lines, and without a traceback if no trial has a value."""

    def sweep(self, arguments: list[str]) -> None:
        """Run the search. The sweep's table lists the trials that failed."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # optuna has a console handler of its own
        try:
            super().sweep(arguments)
        except ValueError as error:  # raised at the end, when the sweeper asks for the best trial
            if "No trials are completed" not in str(error):
                raise
            log.error("kdrun: no trial of this search could be measured; the table has the reasons")
