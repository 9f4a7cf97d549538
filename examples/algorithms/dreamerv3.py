"""DreamerV3 learns to stop a cart at a mark (RLlib 2.60, new API stack, PyTorch)."""

import logging
import os
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch

gym.logger.min_level = gym.logger.ERROR  # the next import makes envs that warn
from ray.rllib.algorithms.dreamerv3 import DreamerV3Config  # noqa: E402

SEED = int(os.environ.get("SEED", 0))
TARGET = -14  # mean return of 20 greedy episodes; about -5 is the best there is
MAX_ENV_STEPS = 9_000


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


def mean_return_without_learning(choose):
    env, returns = StopAtTheMark(), np.zeros(20)
    for episode in range(20):
        env.reset(seed=episode)
        for _ in range(20):
            returns[episode] += env.step(choose())[1]
    return returns.mean()


random = np.random.default_rng(SEED)
print(f"random pushes {mean_return_without_learning(lambda: random.integers(3)):6.1f}")
print(f"never push    {mean_return_without_learning(lambda: 1):6.1f}")

torch.set_num_threads(1)  # so small a network is slower with more threads
torch.distributions.Distribution.set_default_validate_args(False)  # saves time
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    DreamerV3Config()
    .environment(StopAtTheMark)
    # 16 envs side by side, 4 env steps in each: one round of sampling is 64 env steps.
    # By default a round is a single env step of a single env.
    .env_runners(
        num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=4
    )
    .training(
        model_size="mini",  # default "XS", 4 times as wide
        batch_size_B=16,  # the default
        batch_length_T=8,  # default 64: here the past tells nothing new
        horizon_H=8,  # default 15: dreams long enough to brake
        training_ratio=16,  # 8 updates a round; default 1024 replayed per env step
        world_model_lr=4e-3,  # default 1e-4, for far longer runs
        actor_lr=2e-3,  # default 3e-5
        critic_lr=2e-3,  # default 3e-5
        entropy_scale=3e-3,  # default 3e-4: keep on trying while the world is unknown
        gamma=0.9,  # default 0.997: what a push does shows within ten steps
    )
    # One train() goes on for 256 env steps.
    .reporting(min_sample_timesteps_per_iteration=256)
    # 20 greedy episodes, side by side, when algo.evaluate() is called. DreamerV3's
    # default is to report the last episode alone, so ask for the mean of all 20.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={
            "explore": False,
            "num_envs_per_env_runner": 20,
            "metrics_num_episodes_for_smoothing": 20,
        },
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
    sys.exit(f"DreamerV3 missed its target of {TARGET} in {MAX_ENV_STEPS:,} env steps.")
