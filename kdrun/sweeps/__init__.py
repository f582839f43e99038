"""Sweeps: Hydra runs the cells, and what they share is trained first."""
