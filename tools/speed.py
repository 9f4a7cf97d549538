"""How fast this machine is now: the seconds that a fixed piece of work takes.

The name of a CPU says little: two machines of one name differed by a factor of two. The work is a mixture
of what our programs do: plain Python, and NumPy on small matrices, on one core.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 3
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def _work() -> float:
    """The fixed piece of work; never change it, or old records cannot be compared with new ones."""
    total = 0
    for number in range(2_400_000):
        total += number * number % 7
    numbers = {number: str(number) for number in range(240_000)}
    rng = np.random.default_rng(0)
    matrix, weights = rng.normal(size=(64, 64)), rng.normal(size=(64, 64)) / 8
    for _ in range(10_000):
        matrix = np.tanh(matrix @ weights)
    return total + len(numbers) + float(matrix.sum())


def main() -> None:
    """Print the seconds of the fastest repeat: long enough to feel a busy neighbour, not a moment's noise."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        _work()
        times.append(time.perf_counter() - start)
    print(f"{min(times):.4f}")


def work_seconds(cores: list[int]) -> float:
    """Time the work in a process of its own, on the cores that the programs get."""
    result = subprocess.run(
        [sys.executable, "-m", "tools.speed"],
        cwd=ROOT,
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        start_new_session=True,  # a Ctrl-C is the recorder's to answer
    )
    return float(result.stdout)


if __name__ == "__main__":
    main()
