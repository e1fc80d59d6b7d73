"""Python imports this at its start when its folder is on the path: it makes the process simulate a GPU."""

import os

if "SHARDBENCH_SIMULATED_GPU" in os.environ:
    from tests.simulated_gpu.install import prepare

    prepare()
