"""An environment of your own: a thermostat that learns when to heat."""

import logging
import os
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 40  # mean return of 20 greedy episodes of 50 steps
MAX_ENV_STEPS = 80_000


class Thermostat(gym.Env):
    """Keep a room within one degree of what is wanted. It cools down by itself."""

    observation_space = gym.spaces.Box(-30.0, 30.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)  # heater off, heater on

    def __init__(self, config=None):  # RLlib passes env_config here
        self.steps_per_episode = (config or {}).get("steps", 50)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)  # makes self.np_random
        self.wanted = self.np_random.uniform(18, 24)
        self.temperature = self.np_random.uniform(15, 27)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        outside = 10.0
        self.temperature += 0.05 * (outside - self.temperature) + 1.5 * action
        self.steps += 1
        reward = float(abs(self.temperature - self.wanted) < 1.0)
        truncated = self.steps >= self.steps_per_episode  # out of time, not a failure
        return self._observation(), reward, False, truncated, {}

    def _observation(self):
        too_cold = self.wanted - self.temperature
        return np.array([too_cold, self.wanted - 21.0], np.float32)


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment(Thermostat, env_config={"steps": 50})
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(lr=3e-3, train_batch_size_per_learner=2048, num_epochs=6, gamma=0.95)
    .evaluation(
        evaluation_interval=1_000_000,  # without one, evaluation would explore
        evaluation_duration=20,
        evaluation_config={"explore": False},
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["episode_return_mean"]
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   seconds {seconds:5.1f}"
    )
    if mean_return >= 0.9 * TARGET:
        greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]

algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The thermostat missed {TARGET} within {MAX_ENV_STEPS:,} env steps.")
