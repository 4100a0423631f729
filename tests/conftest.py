"""Settings of every test process and of the processes that tests start."""

import os

# The tests' tensors are tiny: threads that wait for each other would take most of the time, and far more of it on a
# busy machine. Tests of threads ask for them by number.
os.environ.setdefault("OMP_NUM_THREADS", "1")
