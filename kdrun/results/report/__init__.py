"""report.html: everything that a run or a sweep left, in one file that needs nothing else."""
