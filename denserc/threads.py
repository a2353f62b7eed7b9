"""Wait policy of PyTorch's threads; imported before PyTorch, whose OpenMP reads the environment once."""

import os


def let_threads_sleep() -> None:
    """Let idle OpenMP threads sleep (OMP_WAIT_POLICY=PASSIVE) in this process and in those that it starts.

    By default they spin, which slows a step many times over on a machine with any other work. A policy that the user
    has chosen by OMP_WAIT_POLICY or GOMP_SPINCOUNT stays.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
