"""SAC learns to swing up Pendulum-v1 (RLlib 2.60, new API stack, PyTorch)."""

import logging
import os
import sys
import time

import ray
import torch
from ray.rllib.algorithms.sac import SACConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = -200  # mean return of 20 greedy episodes; a random policy has about -1200
MAX_ENV_STEPS = 10_000

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    SACConfig()
    .environment("Pendulum-v1")
    # Each round costs about the same for 1 env as for 8: default 1.
    .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
    .training(
        # 64 replayed steps for each env step: with batches of 128, one update for
        # every second env step. Default: one update a round, however many envs.
        training_intensity=64,
        train_batch_size_per_learner=128,  # default 256: cheaper updates
        num_steps_sampled_before_learning_starts=500,  # default 1500
        actor_lr=2e-3,  # default 3e-5, which suits far longer runs
        critic_lr=2e-3,  # default 3e-4
        alpha_lr=2e-3,  # default 3e-4
        initial_alpha=0.2,  # default 1.0: value chance less from the start
        tau=0.02,  # default 0.005: target networks follow faster
        gamma=0.95,  # default 0.99: a swing-up is short
        replay_buffer_config={
            "type": "PrioritizedEpisodeReplayBuffer",  # the default
            "capacity": 20_000,  # default 1,000,000
            "alpha": 0.6,
            "beta": 0.4,
        },
    )
    .rl_module(
        model_config={
            "fcnet_hiddens": [64, 64],  # default 256 each
            "fcnet_activation": "relu",  # default "tanh"
        }
    )
    # One train() goes on for 500 env steps, however long they take.
    .reporting(min_sample_timesteps_per_iteration=500, min_time_s_per_iteration=0)
    # 20 greedy episodes, side by side, when algo.evaluate() is called. Only with an
    # interval does evaluation get an env runner of its own, which can act greedily.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .debugging(seed=SEED, log_level="ERROR")
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, -9999.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    env_steps = int(algo.train()["num_env_steps_sampled_lifetime"])
    # Episodes last 200 steps and few end in an iteration: look at the greedy policy.
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
    sys.exit(f"SAC missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
