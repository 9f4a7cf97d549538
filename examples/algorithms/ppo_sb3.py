"""PPO learns CartPole-v1 with Stable-Baselines3, for comparison with RLlib's PPO."""

import os
import sys
import time

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

SEED = int(os.environ.get("SEED", 0))
TARGET = 450
MAX_ENV_STEPS = 150_000
SETTINGS = dict(  # RL Baselines3 Zoo's tuned settings for CartPole-v1
    n_steps=32,
    batch_size=256,
    n_epochs=20,
    gamma=0.98,
    gae_lambda=0.8,
    ent_coef=0.0,
    learning_rate=lambda remaining: 1e-3 * remaining,
    clip_range=lambda remaining: 0.2 * remaining,
)

torch.set_num_threads(1)  # so small a network is slower with more threads


class UntilSolved(BaseCallback):
    """Prints a line every 2,048 env steps; stops when greedy episodes reach TARGET."""

    iteration, greedy_return, start = 0, 0.0, 0.0

    def _on_step(self) -> bool:
        if self.num_timesteps < 2048 * (self.iteration + 1):
            return True
        self.iteration += 1
        recent = [episode["r"] for episode in list(self.model.ep_info_buffer)[-20:]]
        mean_return = np.mean(recent) if recent else float("nan")
        seconds = time.perf_counter() - self.start
        print(
            f"iteration {self.iteration:3d}   env steps {self.num_timesteps:7,d}   "
            f"mean return {mean_return:6.1f}   seconds {seconds:5.1f}"
        )
        if mean_return >= TARGET:
            test_env = make_vec_env("CartPole-v1", n_envs=20, seed=SEED + 1000)
            self.greedy_return, _ = evaluate_policy(
                self.model, test_env, n_eval_episodes=20
            )
        return self.greedy_return < TARGET


envs = make_vec_env("CartPole-v1", n_envs=8, seed=SEED)
callback = UntilSolved()
model = PPO("MlpPolicy", envs, seed=SEED, device="cpu", **SETTINGS)
callback.start = time.perf_counter()
model.learn(MAX_ENV_STEPS, callback=callback)

print(f"greedy return {callback.greedy_return:.1f} over 20 episodes, target {TARGET}")
if callback.greedy_return < TARGET:
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
