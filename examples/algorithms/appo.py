"""APPO learns to balance CartPole-v1 (RLlib 2.60, new API stack, PyTorch)."""

import logging
import os
import sys
import time

import ray
import torch
from ray.rllib.algorithms.appo import APPOConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 400_000

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    APPOConfig()
    .environment("CartPole-v1")
    # One process samples with 32 envs, and goes on while this process learns.
    .env_runners(
        num_env_runners=1,  # default 2
        num_envs_per_env_runner=32,  # default 1
        rollout_fragment_length=16,  # default 50; 32 envs x 16 env steps: one batch
        # The default, True, hands the weights over through one more process.
        use_env_runner_state_server=False,
    )
    # A lost env runner ends this short program, as any error should.
    .fault_tolerance(restart_failed_env_runners=False)
    .learners(num_learners=0)  # default 1: the learner in a process of its own
    .training(
        train_batch_size_per_learner=512,  # default 500
        lr=2e-3,  # default 5e-4, which suits far longer runs
        gamma=0.98,  # default 0.99
        circular_buffer_num_batches=2,  # N, default 8: younger data
        circular_buffer_iterations_per_batch=2,  # K, the default
        # Copy the policy to the target network every 1 x N x K = 4 batches. With the
        # defaults, it would be every 2 x 8 x 2 = 32.
        target_network_update_freq=1,
        clip_param=0.3,  # default 0.4
        # Wait for samples this long, at most. The default, 0.0, asks again and again,
        # and takes computing time from the learner's thread, which is in this process.
        timeout_s_sampler_manager=0.5,
    )
    # Two networks, for policy and critic: the default in APPO. Default [256, 256].
    .rl_module(model_config={"fcnet_hiddens": [64, 64]})
    # 20 greedy episodes, side by side, when algo.evaluate() is called. Only with an
    # interval does evaluation get an env runner of its own, which can act greedily.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .reporting(min_time_s_per_iteration=2)  # default 10 s for one train()
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    # The first train() may end before the first episodes have arrived.
    env_runners = algo.train()["env_runners"]
    env_steps = int(env_runners.get("num_env_steps_sampled_lifetime", 0))
    # In training, actions are drawn from the policy. What counts is its best action.
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
    sys.exit(f"APPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
