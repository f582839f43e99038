"""One thread per process, since two workers with two threads each wait for one another; no pictures, no tracker."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; the commands that tests start inherit it
os.environ.setdefault("KDRUN_REPORT", "false")  # pictures take seconds; what is about them asks for them
os.environ.setdefault("KDRUN_VERBOSE", "true")  # tests read every line; what is about fewer asks for them
os.environ.setdefault("KDRUN_TRACKER", "none")  # the default is TensorBoard where it is installed
