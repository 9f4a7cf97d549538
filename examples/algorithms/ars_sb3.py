"""ARS learns CartPole-v1 with sb3-contrib, for comparison with our ARS."""

import os
import sys
import time

import torch
from sb3_contrib import ARS
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

SEED = int(os.environ.get("SEED", 0))
TARGET = 450
MAX_ENV_STEPS = 500_000

torch.set_num_threads(1)  # so small a network is slower with more threads
test_env = make_vec_env("CartPole-v1", n_envs=20, seed=SEED + 1000)
# RL Baselines3 Zoo's settings for CartPole-v1: 2 envs, a linear policy. The rest are
# the library's defaults: 8 directions, step size 0.02, noise 0.05.
env = make_vec_env("CartPole-v1", n_envs=2, seed=SEED)
model = ARS("LinearPolicy", env, seed=SEED, device="cpu")

start, iteration, greedy_return = time.perf_counter(), 0, 0.0
while greedy_return < TARGET and model.num_timesteps < MAX_ENV_STEPS:
    iteration += 1
    # Goes on until 2000 env steps more are done, and the update that they belong to.
    # (ARS does not stop when a callback asks it to.)
    model.learn(2000, reset_num_timesteps=False)
    greedy_return, _ = evaluate_policy(model, test_env, n_eval_episodes=20)
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {model.num_timesteps:7,d}   "
        f"mean return {greedy_return:6.1f}   seconds {seconds:5.1f}"
    )

print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"ARS missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
