"""TD3 learns Pendulum-v1 with Stable-Baselines3, for comparison with our TD3."""

import os
import sys
import time

import numpy as np
import torch
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise

SEED = int(os.environ.get("SEED", 0))
TARGET = -250
MAX_ENV_STEPS = 30_000
# RL Baselines3 Zoo's settings for Pendulum-v1: 10,000 random steps come first.
SETTINGS = dict(
    gamma=0.98,
    buffer_size=200_000,
    learning_starts=10_000,
    action_noise=NormalActionNoise(mean=np.zeros(1), sigma=0.1 * np.ones(1)),
    train_freq=1,
    gradient_steps=1,
    learning_rate=1e-3,
    policy_kwargs=dict(net_arch=[400, 300]),
)

torch.set_num_threads(1)  # so small a network is slower with more threads
test_env = make_vec_env("Pendulum-v1", n_envs=20, seed=SEED + 1000)


class UntilSolved(BaseCallback):
    """Every 1000 env steps: a line, and 20 greedy episodes; stops when they suffice."""

    iteration, greedy_return, start = 0, -9999.0, 0.0

    def _on_step(self) -> bool:
        if self.num_timesteps < 1000 * (self.iteration + 1):
            return True
        self.iteration += 1
        self.greedy_return, _ = evaluate_policy(
            self.model, test_env, n_eval_episodes=20
        )
        seconds = time.perf_counter() - self.start
        print(
            f"iteration {self.iteration:3d}   env steps {self.num_timesteps:7,d}   "
            f"mean return {self.greedy_return:6.1f}   seconds {seconds:5.1f}"
        )
        return self.greedy_return < TARGET


callback = UntilSolved()
model = TD3("MlpPolicy", "Pendulum-v1", seed=SEED, device="cpu", **SETTINGS)
callback.start = time.perf_counter()
model.learn(MAX_ENV_STEPS, callback=callback)

print(f"greedy return {callback.greedy_return:.1f} over 20 episodes, target {TARGET}")
if callback.greedy_return < TARGET:
    sys.exit(f"TD3 missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
