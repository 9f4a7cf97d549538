"""TQC learns Pendulum-v1 with sb3-contrib, for comparison with RLlib's TQC."""

import os
import sys
import time

import torch
from sb3_contrib import TQC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

SEED = int(os.environ.get("SEED", 0))
TARGET = -200
MAX_ENV_STEPS = 10_000
SETTINGS = dict(learning_rate=1e-3)  # RL Baselines3 Zoo's tuned setting, Pendulum-v1

torch.set_num_threads(1)  # so small a network is slower with more threads
test_env = make_vec_env("Pendulum-v1", n_envs=20, seed=SEED + 1000)


class UntilSolved(BaseCallback):
    """Every 500 env steps: a line, and 20 greedy episodes; stops when they suffice."""

    iteration, greedy_return, start = 0, -9999.0, 0.0

    def _on_step(self) -> bool:
        if self.num_timesteps < 500 * (self.iteration + 1):
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
model = TQC("MlpPolicy", "Pendulum-v1", seed=SEED, device="cpu", **SETTINGS)
callback.start = time.perf_counter()
model.learn(MAX_ENV_STEPS, callback=callback)

print(f"greedy return {callback.greedy_return:.1f} over 20 episodes, target {TARGET}")
if callback.greedy_return < TARGET:
    sys.exit(f"TQC missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
