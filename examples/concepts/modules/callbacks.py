"""A callback that logs what RLlib does not: the whole return of every episode."""

import logging
import os
import sys
from collections import deque

import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback

SEED = int(os.environ.get("SEED", 0))


class LogReturns(RLlibCallback):
    """RLlib calls these methods by their names, in the process of the env runner."""

    def on_episode_end(self, *, episode, prev_episode_chunks, metrics_logger, **kwargs):
        # sample() cuts episodes into pieces; the return is the sum over all of them.
        pieces = [*prev_episode_chunks, episode]
        whole = sum(piece.get_return() for piece in pieces)
        metrics_logger.log_value("returns", whole, reduce="item_series")
        last = episode.get_return()
        metrics_logger.log_value("last_pieces", last, reduce="item_series")


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(lr=3e-3, train_batch_size_per_learner=2048, num_epochs=6)
    .callbacks(LogReturns)
    .debugging(seed=SEED)
)
algo = config.build_algo()
last_100 = deque(maxlen=100)

print("           episodes  episode_      mean of   mean of   mean of")
print("iteration  ended     return_mean   returns   last 100  last pieces")
for iteration in range(1, 9):
    metrics = algo.train()["env_runners"]
    # A series of one item comes back as a plain number, so make it a series again.
    returns = np.atleast_1d(metrics["returns"])
    last_pieces = np.atleast_1d(metrics["last_pieces"])
    last_100.extend(returns)
    print(
        f"{iteration:9d}  {len(returns):8d}  {metrics['episode_return_mean']:11.1f}   "
        f"{np.mean(returns):7.1f}   {np.mean(last_100):8.1f}  "
        f"{np.mean(last_pieces):11.1f}"
    )
    # RLlib's number covers the episodes of this iteration, of those the last 100.
    if not np.isclose(np.mean(returns[-100:]), metrics["episode_return_mean"]):
        sys.exit("episode_return_mean is not what this program takes it for.")
algo.stop()
ray.shutdown()
if np.mean(last_pieces) >= np.mean(returns):
    sys.exit("The last pieces should miss a part of the returns.")
