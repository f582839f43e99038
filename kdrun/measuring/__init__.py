"""What runs networks after training: corruptions, attacks, robustness, cost; and where the numbers are kept."""
