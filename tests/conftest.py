"""One thread per process: two test workers with two threads each wait for one another's spinning threads."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; the commands that tests start inherit it
