"""The same house for a single agent: it never finds out that there is a treasure."""

import logging
import os
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
BOUND = 0.1  # how often 100 greedy episodes find the treasure, at most
MAX_ENV_STEPS = 200_000  # as many as the two levels may take
STEPS = 200  # of an episode
MOVES = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])  # north, east, south, west


class House:
    """Nine rooms of 5x5 cells. The treasure's door opens for who has the key.

    key  0   1 - 2
         |   |          a door is in the middle of a wall;
         3 - 4 - 5      key and treasure lie in a corner;
             |   #      the start is a random cell of room 4
         6 - 7   8  treasure
    """

    DOORS = {(0, 3), (1, 2), (1, 4), (3, 4), (4, 5), (4, 7), (5, 8), (6, 7)}

    def __init__(self, random):
        self.room, self.cell = 4, random.integers(0, 5, 2)
        self.has_key, self.steps = False, 0

    def behind(self, direction):
        """The room in that direction, or None where no open door leads."""
        there = self.room + (-3, 1, 3, -1)[direction]
        door = min(self.room, there), max(self.room, there)
        is_open = door in self.DOORS and (door != (5, 8) or self.has_key)
        return there if is_open else None

    def move(self, direction):
        """One step. True if it finds the treasure."""
        self.steps += 1
        cell = self.cell + MOVES[direction]
        if cell.min() >= 0 and cell.max() <= 4:
            self.cell = cell
        elif 2 in cell and self.behind(direction) is not None:
            self.room, self.cell = self.behind(direction), cell % 5
        self.has_key |= self.room == 0 and self.in_corner()
        return self.room == 8 and self.in_corner()

    def in_corner(self):
        return bool((self.cell == 0).all())

    def rooms_view(self):  # the wide scope: which room, and is the key in hand?
        return np.array([*np.eye(9)[self.room], self.has_key], np.float32)

    def cells_view(self):  # the narrow scope: where in this room, whichever it is
        return np.eye(25, dtype=np.float32)[5 * self.cell[1] + self.cell[0]]


class OneLevel(gym.Env):
    """One agent walks from beginning to end, and sees what both levels would see."""

    def __init__(self, config=None):
        self.observation_space = gym.spaces.Box(0.0, 1.0, (35,), np.float32)
        self.action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.house = House(self.np_random)
        return self._view(), {}

    def step(self, direction):
        found = self.house.move(direction)
        late = not found and self.house.steps == STEPS
        return self._view(), float(found), found, late, {}

    def _view(self):
        return np.append(self.house.rooms_view(), self.house.cells_view())


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment(OneLevel)
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=2e-3,
        train_batch_size_per_learner=4096,
        minibatch_size=512,
        num_epochs=6,
        gamma=0.99,  # nearer to 1 than for the two levels: rewards are 31 steps away
        lambda_=0.95,
        entropy_coeff=0.01,
        clip_param=0.2,  # these and the rest: as for the two levels
        use_kl_loss=False,
        vf_loss_coeff=0.5,
        grad_clip=0.5,
    )
    # More weights than both levels together have.
    .rl_module(model_config={"fcnet_hiddens": [96, 96]})
    .evaluation(
        evaluation_interval=1_000_000,  # when algo.evaluate() is called, and greedily
        evaluation_duration=100,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, found = time.perf_counter(), 0, 0, 0.0
while env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    metrics = result["env_runners"]
    mean_return = metrics["episode_return_mean"]
    found += mean_return * metrics["num_episodes"]
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )

greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]
algo.stop()
ray.shutdown()
episodes = int(metrics["num_episodes_lifetime"])
print(f"treasures found in {episodes:,} training episodes: {found:.0f}")
print(f"greedy return {greedy_return:.1f} over 100 episodes, bound {BOUND}")
if greedy_return > BOUND:
    sys.exit(f"One agent alone should have stayed below {BOUND}.")
