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


for env_runners, interval in ((0, None), (0, 1_000_000), (1, None)):
    config = (
        PPOConfig()
        .environment(SameStart)
        .env_runners(num_env_runners=env_runners)
        .evaluation(
            evaluation_interval=interval,
            evaluation_duration=5,  # episodes
            evaluation_config={"explore": False},
        )
        .fault_tolerance(restart_failed_env_runners=False)  # Ray has nothing to warn of
        .debugging(seed=0)
    )
    algo = config.build_algo()
    lengths.clear()
    error = ""
    try:
        algo.evaluate()
    except ValueError as raised:
        error = f"ValueError: ... {str(raised).partition('> ')[2]}"
    algo.stop()
    print(f"num_env_runners={env_runners}, evaluation_interval={interval}:")
    print(f"    {error or f'episodes of {lengths} steps'}")
    explored = len(set(lengths)) > 1
    if explored is not (env_runners == 0 and interval is None):
        sys.exit("RLlib has changed: this is no longer how evaluate() chooses.")
    if bool(error) is not (env_runners > 0):
        sys.exit("RLlib has changed: this is no longer how evaluate() chooses.")
ray.shutdown()
