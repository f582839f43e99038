"""Measurements that run networks after training: corruptions, attacks, robustness, cost; and where they are stored."""
