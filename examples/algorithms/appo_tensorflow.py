"""APPO learns to balance CartPole-v1 with TensorFlow (RLlib 2.60, old API stack)."""

import logging
import os
import sys
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # RLlib's TensorFlow code needs Keras 2
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no notes about GPUs that are not there

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.algorithms.appo import APPOConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 150_000

for name in ("ray", "ray.rllib"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    APPOConfig()
    # TensorFlow lives in the old API stack only.
    .api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    .framework("tf")  # graph mode
    .environment("CartPole-v1")
    # One process samples with 16 envs, and goes on while this process learns.
    .env_runners(
        num_env_runners=1,  # default 2
        num_envs_per_env_runner=16,  # default 1
        rollout_fragment_length=16,  # default 50; 16 envs x 16 env steps: one batch
    )
    # A lost env runner ends this short program, as any error should.
    .fault_tolerance(restart_failed_env_runners=False)
    .training(
        train_batch_size=256,  # default 500: more and smaller updates
        lr=2e-3,  # default 5e-4, which suits far longer runs
        gamma=0.98,  # default 0.99
        # Wait for samples this long, at most. The default, 0.0, asks again and again,
        # and takes computing time from the learner's thread, which is in this process.
        timeout_s_sampler_manager=0.2,
        model={
            "fcnet_hiddens": [64, 64],  # default [256, 256]
            "vf_share_layers": False,  # default True: one network for both
        },
    )
    .reporting(min_time_s_per_iteration=3)  # default 10 s for one train()
    .debugging(seed=SEED, log_level="ERROR")
)

algo = config.build_algo()
envs = gym.make_vec("CartPole-v1", num_envs=20)


def evaluate():
    """Mean return of 20 greedy episodes, side by side."""
    returns, running = np.zeros(20), np.ones(20, bool)
    observations, _ = envs.reset(seed=1000 + SEED)
    while running.any():
        actions = algo.get_policy().compute_actions(observations, explore=False)[0]
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        returns += rewards * running
        running &= ~(terminated | truncated)
    return returns.mean()


start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    env_steps = algo.train()["num_env_steps_sampled_lifetime"]
    greedy_return = evaluate()
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {greedy_return:6.1f}   seconds {seconds:5.1f}"
    )

algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"APPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
