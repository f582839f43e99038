"""The sweeper of conf/hydra/sweeper/search.yaml: the plugin's, that ends well whatever failed. Needs kdrun[optuna]."""

from __future__ import annotations

import logging

from hydra.core.plugins import Plugins
from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

log = logging.getLogger(__name__)
NAME = "hydra_plugins.kdrun.SearchSweeper"  # Hydra takes sweepers from this package alone; a name will do


class SearchSweeper(OptunaSweeper):  # type: ignore[misc]
    """Optuna's sweeper, without its own console lines, and without a traceback where no trial has a value."""

    def sweep(self, arguments: list[str]) -> None:
        """Search; what failed is told by the table."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it has a console handler of its own
        try:
            super().sweep(arguments)
        except ValueError as error:  # raised at the end, where it asks for the best of none
            if "No trials are completed" not in str(error):
                raise
            log.error("kdrun: no trial of this search could be measured; the table has the reasons")


def register() -> None:
    """Tell Hydra about it."""
    plugins = Plugins.instance()
    plugins.register(SearchSweeper)
    plugins.class_name_to_class[NAME] = SearchSweeper
