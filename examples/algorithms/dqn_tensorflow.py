"""DQN learns to balance CartPole-v1 with TensorFlow 2 (RLlib 2.60, old API stack)."""

import logging
import os
import sys
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # RLlib's TensorFlow code needs Keras 2
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no notes about GPUs that are not there

import gymnasium as gym
import numpy as np
import ray
import tensorflow as tf
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.utils.replay_buffers import MultiAgentPrioritizedReplayBuffer

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 40_000
BATCH_SIZE = 64


class WholeBatches(MultiAgentPrioritizedReplayBuffer):
    """RLlib's own buffer, which the old stack asks for one env step at a time.

    Here one question is answered with a whole batch, in a fraction of the time.
    """

    def sample(self, num_items, **kwargs):
        return super().sample(num_items * BATCH_SIZE, **kwargs)


# So small a network is slower with more threads.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
for name in ("ray", "ray.rllib"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    DQNConfig()
    # TensorFlow lives in the old API stack only.
    .api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    .framework("tf2", eager_tracing=True)  # eager_tracing: compiled, so faster
    .environment("CartPole-v1")
    # 8 envs side by side, 8 env steps in each: one round of sampling is 64 env steps.
    .env_runners(
        num_env_runners=0,
        num_envs_per_env_runner=8,
        rollout_fragment_length=8,
        exploration_config={  # the old stack's form of `epsilon`
            "type": "EpsilonGreedy",
            "initial_epsilon": 1.0,
            "final_epsilon": 0.04,  # default 0.02
            "epsilon_timesteps": 3_000,  # default 10,000
        },
    )
    .training(
        # 32 replayed steps for each env step: with batches of 64, one update for
        # every second env step. Default: one update a round, however long it was.
        training_intensity=32,
        train_batch_size=BATCH_SIZE,  # default 32: the same time, a better gradient
        num_steps_sampled_before_learning_starts=500,  # default 1000
        lr=4e-3,  # default 5e-4
        target_network_update_freq=64,  # default 500: copy the network after each round
        n_step=3,  # default 1: three rewards are added up before the network guesses
        hiddens=[],  # default [256]: no hidden layer in the heads, as on the new stack
        model={"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        # RLlib cannot make the buffer itself (a TypeError), so it gets one below.
        replay_buffer_config={
            "type": "MultiAgentReplayBuffer",
            "no_local_replay_buffer": True,
        },
    )
    .reporting(min_sample_timesteps_per_iteration=1000)
    .debugging(seed=SEED, log_level="ERROR")
)

algo = config.build_algo()
algo.local_replay_buffer = WholeBatches(capacity=50_000)
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
    # In training, 1 move in 25 stays random. What counts is the greedy policy.
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
    sys.exit(f"DQN missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
