"""SAC learns to swing up Pendulum-v1 with TensorFlow (RLlib 2.60, old API stack)."""

import logging
import os
import sys
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # RLlib's TensorFlow code needs Keras 2
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no notes about GPUs that are not there

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.utils.replay_buffers import MultiAgentReplayBuffer

SEED = int(os.environ.get("SEED", 0))
TARGET = -200  # mean return of 20 greedy episodes; a random policy has about -1200
MAX_ENV_STEPS = 10_000
BATCH_SIZE = 128
NETWORK = {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"}  # default 256 each


class WholeBatches(MultiAgentReplayBuffer):
    """RLlib's own buffer, which the old stack asks for one env step at a time.

    Here one question is answered with a whole batch, in a fraction of the time.
    """

    def sample(self, num_items, **kwargs):
        return super().sample(num_items * BATCH_SIZE, **kwargs)


for name in ("ray", "ray.rllib"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    SACConfig()
    # TensorFlow lives in the old API stack only.
    .api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    # Graph mode. With "tf2", alpha would keep its initial value.
    .framework(
        "tf",
        local_tf_session_args={  # default 8 threads, too many for so small a network
            "intra_op_parallelism_threads": 1,
            "inter_op_parallelism_threads": 1,
        },
    )
    .environment("Pendulum-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
    .training(
        lr=3e-4,  # default None, which "tf2" cannot take; the three below are used
        optimization_config={  # default 3e-4 each
            "actor_learning_rate": 2e-3,
            "critic_learning_rate": 2e-3,
            "entropy_learning_rate": 2e-3,
        },
        # 128 replayed steps for each env step: one update for each env step.
        training_intensity=128,
        train_batch_size=BATCH_SIZE,  # default 256
        num_steps_sampled_before_learning_starts=500,  # default 1500
        initial_alpha=0.2,  # default 1.0: value chance less from the start
        tau=0.02,  # default 0.005: target networks follow faster
        gamma=0.95,  # default 0.99: a swing-up is short
        q_model_config=NETWORK,
        policy_model_config=NETWORK,
        # The default, EpisodeReplayBuffer, belongs to the new API stack.
        replay_buffer_config={"type": "MultiAgentReplayBuffer"},
    )
    # One train() goes on for 500 env steps, however long they take.
    .reporting(min_sample_timesteps_per_iteration=500, min_time_s_per_iteration=0)
    .debugging(seed=SEED, log_level="ERROR")
)

algo = config.build_algo()
algo.local_replay_buffer = WholeBatches(capacity=20_000)
envs = gym.make_vec("Pendulum-v1", num_envs=20)


def evaluate():
    """Mean return of 20 greedy episodes, side by side; each has 200 steps."""
    returns, (observations, _) = np.zeros(20), envs.reset(seed=1000 + SEED)
    for _ in range(200):
        actions = algo.get_policy().compute_actions(observations, explore=False)[0]
        # The policy's actions are between -1 and 1, those of Pendulum -2 and 2.
        observations, rewards, *_ = envs.step(2 * actions)
        returns += rewards
    return returns.mean()


start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, -9999.0
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
    sys.exit(f"SAC missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
