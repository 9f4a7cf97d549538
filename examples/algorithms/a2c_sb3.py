"""A2C learns CartPole-v1 with Stable-Baselines3, for comparison with our A2C."""

import os
import sys
import time

import torch
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

SEED = int(os.environ.get("SEED", 0))
TARGET = 450
MAX_ENV_STEPS = 500_000
# RL Baselines3 Zoo's settings for CartPole-v1: 8 envs, no entropy bonus. The rest are
# the library's defaults: 5 env steps of each env in a batch, RMSprop with 7e-4.
NUM_ENVS, SETTINGS = 8, dict(ent_coef=0.0)

torch.set_num_threads(1)  # so small a network is slower with more threads
test_env = make_vec_env("CartPole-v1", n_envs=20, seed=SEED + 1000)


class UntilSolved(BaseCallback):
    """Every 2000 env steps: a line, and 20 greedy episodes; stops when they suffice."""

    iteration, greedy_return, start = 0, 0.0, 0.0

    def _on_step(self) -> bool:
        if self.num_timesteps < 2000 * (self.iteration + 1):
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
env = make_vec_env("CartPole-v1", n_envs=NUM_ENVS, seed=SEED)
model = A2C("MlpPolicy", env, seed=SEED, device="cpu", **SETTINGS)
callback.start = time.perf_counter()
model.learn(MAX_ENV_STEPS, callback=callback)

print(f"greedy return {callback.greedy_return:.1f} over 20 episodes, target {TARGET}")
if callback.greedy_return < TARGET:
    sys.exit(f"A2C missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
