"""Where the seconds of a small RLlib program go, from its first import to its end."""

import time

last = time.perf_counter()


def lap(what):
    """Print the seconds since the last lap."""
    global last
    now = time.perf_counter()
    print(f"{what:45s} {now - last:6.1f} s")
    last = time.perf_counter()


import logging
import os

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

lap("import of Ray, PyTorch and RLlib")

SEED = int(os.environ.get("SEED", 0))
torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
QUIET = {"log_to_driver": False, "logging_level": "error"}

ray.init("local", include_dashboard=False, **QUIET)
lap("ray.init")

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(train_batch_size_per_learner=2048, minibatch_size=256, num_epochs=6)
    .debugging(seed=SEED)
)
algo = config.build_algo()
lap("build_algo, no env runner of its own")

for iteration in 1, 2:
    algo.train()
    lap(f"iteration {iteration}, 2,048 env steps")

algo.stop()
lap("algo.stop")

# The same with two env runners: two more processes, and each imports RLlib, too.
algo = config.copy(copy_frozen=False).env_runners(num_env_runners=2).build_algo()
lap("build_algo, two env runners")

algo.stop()
ray.shutdown()
lap("algo.stop and ray.shutdown")

# What other ways to start Ray would cost.
for name, settings in {
    "ray.init without include_dashboard=False": {},
    "ray.init for one CPU": {"include_dashboard": False, "num_cpus": 1},
}.items():
    last = time.perf_counter()
    ray.init("local", **settings, **QUIET)
    lap(name)
    ray.shutdown()
