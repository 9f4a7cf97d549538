"""Parametric DQN: the actions on offer change at each step, and carry features."""

import logging
import os
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.dqn_learner import QF_PREDS
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import (
    DefaultDQNTorchRLModule,
)
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import nn

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 40_000
SLOTS, FEATURES = 10, 2


class Offers(gym.Wrapper):
    """CartPole-v1 whose two actions hide among 10 slots, in new places at each step.

    The observation holds the cart's state, a mask of the slots that can be chosen, and
    each slot's features. An empty slot is illegal: choosing it ends the program.
    """

    kinds = np.random.default_rng(1).normal(size=(2, FEATURES))  # left and right

    def __init__(self, config=None):
        super().__init__(gym.make("CartPole-v1"))
        size = 4 + SLOTS + SLOTS * FEATURES
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gym.spaces.Discrete(SLOTS)

    def _offer(self, state):
        self.slots = self.np_random.choice(SLOTS, size=2, replace=False)
        mask, features = np.zeros(SLOTS), np.zeros((SLOTS, FEATURES))
        mask[self.slots], features[self.slots] = 1, self.kinds
        return np.concatenate([state, mask, features.ravel()], dtype=np.float32)

    def reset(self, **kwargs):
        state, info = self.env.reset(**kwargs)
        return self._offer(state), info

    def step(self, slot):
        [action] = np.flatnonzero(self.slots == slot)  # fails for an empty slot
        state, *rest = self.env.step(action)
        return self._offer(state), *rest


class ParametricModule(DefaultDQNTorchRLModule):
    """Q(s, a) is the product of what the state asks for and what the action has."""

    def setup(self):
        super().setup()
        self.encoder = nn.Sequential(
            nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
        )
        self.af = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 128))

    def _qf_forward_helper(self, batch, encoder, head):
        sizes = [4, SLOTS, SLOTS * FEATURES]
        state, mask, features = batch["obs"].split(sizes, dim=-1)
        actions = head(features.view(-1, SLOTS, FEATURES))
        q_values = (encoder(state).unsqueeze(1) * actions).sum(dim=-1)
        # RLlib neither chooses nor explores an action whose Q-value is -inf.
        return {QF_PREDS: q_values.masked_fill(mask == 0, -torch.inf)}


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
gym.logger.min_level = gym.logger.ERROR  # nothing about observations without limits
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    DQNConfig()
    .environment(Offers)
    # 8 envs side by side, 8 env steps in each: one round of sampling is 64 env steps.
    .env_runners(
        num_env_runners=0, num_envs_per_env_runner=8, rollout_fragment_length=8
    )
    .training(
        dueling=False,  # default True: the module above has one stream
        # One update of 64 for every second env step, a copy into the target network
        # after each round: the DQN page says why.
        training_intensity=32,
        train_batch_size_per_learner=64,
        num_steps_sampled_before_learning_starts=500,
        lr=1e-3,
        target_network_update_freq=10,
        epsilon=[(0, 1.0), (3_000, 0.04)],
        replay_buffer_config={  # the default
            "type": "PrioritizedEpisodeReplayBuffer",
            "capacity": 50_000,
            "alpha": 0.6,
            "beta": 0.4,
        },
    )
    .rl_module(rl_module_spec=RLModuleSpec(module_class=ParametricModule))
    # One train() goes on for 1000 env steps, however long they take.
    .reporting(min_sample_timesteps_per_iteration=1000)
    # 20 greedy episodes, side by side, when algo.evaluate() is called. Only with an
    # interval does evaluation get an env runner of its own, which can act greedily.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    env_steps = int(algo.train()["num_env_steps_sampled_lifetime"])
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
    sys.exit(f"Parametric DQN missed its target within {MAX_ENV_STEPS:,} env steps.")
