"""What MARWIL takes for the return of a step, with three ways to read the same file."""

import logging
import os

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.offline.offline_prelearner import OfflinePreLearner

logging.getLogger("ray").setLevel(logging.ERROR)  # no banner about API stacks
torch.manual_seed(int(os.environ.get("SEED", 0)))  # for the value function, untrained


class WholeEpisodes(OfflinePreLearner):
    """As in marwil.py."""

    def _map_to_episodes(self, batch, **kwargs):
        return self._map_sample_batch_to_episode(batch, to_numpy=True)


# One episode of four steps; each step gives a reward of 1, and the last one ends it.
observations = np.eye(5, dtype=np.float32)
steps = {
    "obs": observations[:4],
    "actions": np.array([0, 1, 0, 1]),
    "rewards": np.ones(4),
    "new_obs": observations[1:],
    "terminateds": np.array([False, False, False, True]),
    "truncateds": np.zeros(4, bool),
}
episode = {name: [values] for name, values in steps.items()}  # a single row of lists


def targets(prelearner_class, batch, **settings):
    """The value targets that RLlib computes from rows, with values still untrained."""
    config = (
        MARWILConfig()
        .environment(
            observation_space=gym.spaces.Box(0, 1, (5,), np.float32),
            action_space=gym.spaces.Discrete(2),
        )
        .offline_data(**settings)
        .training(gamma=0.9, train_batch_size_per_learner=4)
    )
    spaces = (config.observation_space, config.action_space)
    prelearner = prelearner_class(
        config=config,
        spaces=spaces,
        module_spec=config.get_multi_rl_module_spec(spaces={"default_policy": spaces}),
    )
    out = prelearner(batch)
    mask = np.asarray(out["default_policy/loss_mask"]).astype(bool)  # no added steps
    return np.asarray(out["default_policy/value_targets"])[mask].round(2)


print("the returns, by hand:")
print(np.array([sum(0.9**k for k in range(left)) for left in (4, 3, 2, 1)]).round(2))
print("a row is a step (the default):")
print(targets(OfflinePreLearner, steps))
print("a row is an episode, from which RLlib draws single steps:")
print(targets(OfflinePreLearner, episode, input_read_sample_batches=True))
print("a row is an episode, and stays whole:")
print(targets(WholeEpisodes, episode))
