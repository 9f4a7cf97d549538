"""PPO learns to stop a cart at a mark, beside DreamerV3 (RLlib 2.60, PyTorch)."""

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
TARGET = -14  # mean return of 20 greedy episodes; about -5 is the best there is
MAX_ENV_STEPS = 150_000


class StopAtTheMark(gym.Env):
    """Push a cart left (0), not at all (1) or right (2). It rolls on: brake in time."""

    def __init__(self, config=None):
        self.observation_space = gym.spaces.Box(-7.0, 7.0, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.speed, self.steps = self.np_random.uniform(-4, 4), 0.0, 0
        return np.array([self.position, self.speed], np.float32), {}

    def step(self, action):
        self.steps += 1
        self.speed += 0.4 * (action - 1)
        self.position += self.speed
        if abs(self.position) > 6:  # a buffer at each end of the rail
            self.position, self.speed = 6 * np.sign(self.position), 0.0
        observation = np.array([self.position, self.speed], np.float32)
        return observation, -abs(self.position), False, self.steps == 20, {}


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
gym.logger.min_level = gym.logger.ERROR  # no word about a second env runner's envs
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment(StopAtTheMark)
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=3e-3,  # default 5e-5, which suits far longer runs
        train_batch_size_per_learner=1024,  # default 4000: update more often
        minibatch_size=128,  # the default
        num_epochs=6,  # default 30: reuse each batch less
        gamma=0.9,  # default 0.99; the same as DreamerV3's
        lambda_=0.9,  # default 1.0: less variance in the advantages, some bias
        clip_param=0.2,  # default 0.3
        use_kl_loss=False,  # the clip alone keeps the policy near the old one
        vf_clip_param=float("inf"),  # default 10, far below squared errors here
        grad_clip=0.5,  # default: none
    )
    .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
    # 20 greedy episodes, side by side, when algo.evaluate() is called.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, -np.inf
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    env_steps = int(algo.train()["num_env_steps_sampled_lifetime"])
    greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {greedy_return:6.1f}   seconds {seconds:5.1f}"
    )

algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
