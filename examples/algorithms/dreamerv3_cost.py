"""What one update of DreamerV3 costs, by size of model and batch (RLlib 2.60)."""

import logging
import statistics
import time

import gymnasium as gym
import ray
import torch

gym.logger.min_level = gym.logger.ERROR  # the next import makes envs that warn
from ray.rllib.algorithms.dreamerv3 import DreamerV3Config  # noqa: E402

torch.set_num_threads(1)  # one core, as in dreamerv3.py
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

print("size   B x T  horizon     weights   seconds")
for size, B, T, H in [
    ("nano", 16, 8, 8),
    ("mini", 16, 8, 8),  # as in dreamerv3.py
    ("mini", 16, 64, 15),
    ("XS", 16, 8, 8),
    ("XS", 16, 64, 15),  # RLlib's defaults
]:
    algo = (
        DreamerV3Config()
        .environment("CartPole-v1")
        .training(
            model_size=size,
            batch_size_B=B,
            batch_length_T=T,
            horizon_H=H,
            training_ratio=B * T,  # one update for each env step
        )
        .build_algo()
    )
    weights = sum(tensor.numel() for tensor in algo.get_module().parameters())
    algo.train()  # fills the buffer until it holds one batch, then updates once
    seconds = []
    for _ in range(3):  # one env step and one update each
        start = time.perf_counter()
        algo.train()
        seconds.append(time.perf_counter() - start)
    algo.stop()
    cost = statistics.median(seconds)
    print(f"{size:5s} {B:2d} x {T:2d} {H:8d} {weights:11,d} {cost:9.2f}")
ray.shutdown()

hours = 10_000 * cost / 3600
print(f"at that pace, 10,000 env steps with RLlib's defaults take {hours:.0f} hours")
