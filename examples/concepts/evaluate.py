"""When does algo.evaluate() really leave out exploration?"""

import logging
import sys

import gymnasium as gym
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
gym.logger.min_level = gym.logger.ERROR  # no word about building the env twice

lengths = []


class SameStart(gym.Wrapper):
    """CartPole in which every episode begins alike, so only the actions can differ."""

    def __init__(self, config=None):
        super().__init__(gym.make("CartPole-v1"))

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self.env.reset(seed=0)

    def step(self, action):
        *rest, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        if terminated or truncated:
            lengths.append(self.steps)
        return *rest, terminated, truncated, info


for interval in (None, 1_000_000):
    config = (
        PPOConfig()
        .environment(SameStart)
        .env_runners(num_env_runners=0)
        .evaluation(
            evaluation_interval=interval,
            evaluation_duration=5,  # episodes
            evaluation_config={"explore": False},
        )
        .debugging(seed=0)
    )
    algo = config.build_algo()
    lengths.clear()
    algo.evaluate()
    algo.stop()
    print(f"evaluation_interval={interval}: episodes of {lengths} steps")
    explored = len(set(lengths)) > 1
    if explored is not (interval is None):
        sys.exit("RLlib has changed: this is no longer how evaluate() chooses.")
ray.shutdown()
