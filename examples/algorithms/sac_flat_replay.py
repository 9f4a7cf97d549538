"""SAC learns Pendulum-v1 with a replay buffer of flat arrays, for a faster update."""

import logging
import os
import sys
import time

import numpy as np
import ray
import torch
from ray.rllib.algorithms.sac import SAC, SACConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import BatchedNdArray

SEED = int(os.environ.get("SEED", 0))
TARGET = -200  # mean return of 20 greedy episodes; a random policy has about -1200
MAX_ENV_STEPS = 10_000


class FlatReplayBuffer:
    """Keeps transitions in one NumPy array for each column, and draws them uniformly.

    RLlib's own buffers make an episode object of each transition that they draw, and
    the learner connectors take it apart again. This one hands over whole arrays.
    """

    def __init__(self, capacity, seed):
        self.capacity, self.rng = capacity, np.random.default_rng(seed)
        self.columns, self.size, self.next = {}, 0, 0

    def add(self, episodes):
        """Append the env steps of some pieces of episodes, oldest ones overwritten."""
        for episode in episodes:
            steps = len(episode)
            observations = np.asarray(episode.get_observations(), np.float32)
            last = np.arange(steps) == steps - 1
            rows = {
                Columns.OBS: observations[:-1],
                Columns.NEXT_OBS: observations[1:],
                Columns.ACTIONS: np.asarray(episode.get_actions(), np.float32),
                Columns.REWARDS: np.asarray(episode.get_rewards(), np.float32),
                Columns.TERMINATEDS: last & episode.is_terminated,
                Columns.TRUNCATEDS: last & episode.is_truncated,
                "n_step": np.ones(steps, np.float32),
                "weights": np.ones(steps, np.float32),  # of a prioritized buffer
            }
            index = (self.next + np.arange(steps)) % self.capacity
            for column, values in rows.items():
                shape = (self.capacity, *values.shape[1:])
                self.columns.setdefault(column, np.zeros(shape, values.dtype))
                self.columns[column][index] = values
            self.next = (self.next + steps) % self.capacity
            self.size = min(self.size + steps, self.capacity)

    def sample(self, num_items, **kwargs):
        """Draw `num_items` transitions, in the one list that RLlib's Learner takes."""
        index = self.rng.integers(self.size, size=num_items)
        return [Transitions({name: rows[index] for name, rows in self.columns.items()})]

    def get_metrics(self):
        return {}


class Transitions(SingleAgentEpisode):
    """Drawn transitions, in the clothes of an episode."""

    def __init__(self, columns):
        super().__init__()
        self.columns = columns

    def __len__(self):
        return len(self.columns[Columns.REWARDS])


class AddTransitions(ConnectorV2):
    """Puts drawn transitions into the batch; RLlib's own pieces then leave them be."""

    def __call__(self, *, batch, episodes, **kwargs):
        for column, rows in episodes[0].columns.items():
            batch[column] = {("",): [BatchedNdArray(rows)]}
        return batch


class FlatSAC(SAC):
    """SAC as RLlib ships it, with the buffer above."""

    def setup(self, config):
        super().setup(config)
        self.local_replay_buffer = FlatReplayBuffer(capacity=20_000, seed=SEED)


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    SACConfig(algo_class=FlatSAC)
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
    )
    .learners(learner_connector=lambda *spaces: AddTransitions())
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
