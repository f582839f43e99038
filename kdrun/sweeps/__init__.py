"""Sweeps: Hydra runs the cells; the trainings that they share are done first."""
