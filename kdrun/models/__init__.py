"""Networks: one architecture family per file, built by name from plain arguments."""

from kdrun.models.base import Classifier, Outputs
from kdrun.models.builder import Description, Unfilled, build, describe, digest, resolve, spelled_out
from kdrun.models.weights import load_weights

__all__ = [
    "Classifier",
    "Description",
    "Outputs",
    "Unfilled",
    "build",
    "describe",
    "digest",
    "load_weights",
    "resolve",
    "spelled_out",
]
