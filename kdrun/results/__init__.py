"""What people read: comparisons, statistics, tables and pictures, made from result files alone. No torch."""
