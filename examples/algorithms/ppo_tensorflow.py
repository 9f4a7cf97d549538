"""PPO learns to balance CartPole-v1 with TensorFlow 2 (RLlib 2.60, old API stack)."""

import logging
import os
import sys
import time

os.environ["TF_USE_LEGACY_KERAS"] = (
    "1"  # RLlib's TensorFlow code needs Keras 2 (package tf-keras)
)

import numpy as np
import ray
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 150_000

logging.getLogger("ray.rllib").setLevel(logging.ERROR)
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    # TensorFlow lives in the old API stack only.
    .api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    .framework("tf2", eager_tracing=True)  # eager_tracing: compiled, so faster
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=3e-3,
        train_batch_size=2048,  # the old stack's name
        minibatch_size=256,
        num_epochs=6,
        gamma=0.98,
        lambda_=0.9,
        clip_param=0.2,
        kl_coeff=0.0,  # no KL loss
        vf_clip_param=float("inf"),
        vf_loss_coeff=0.5,
        grad_clip=0.5,
        model={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"},
    )
    # 20 greedy episodes, one after another, when algo.evaluate() is called. Only with
    # an interval does evaluation get an env runner of its own, which acts greedily.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 1},
    )
    .debugging(seed=SEED, log_level="ERROR")
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = result["num_env_steps_sampled_lifetime"]
    # episode_return_mean covers 100 episodes here; the last 20 tell earlier.
    mean_return = np.mean(result["env_runners"]["hist_stats"]["episode_reward"][-20:])
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   seconds {seconds:5.1f}"
    )
    if mean_return >= TARGET:
        greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]

algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
