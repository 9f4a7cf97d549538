"""A model of your own: a table for FrozenLake, whose observations are mere numbers."""

import logging
import os
import sys
import time

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule

SEED = int(os.environ.get("SEED", 0))
TARGET = 1.0  # mean return of 20 greedy episodes: the goal is reached each time
MAX_ENV_STEPS = 80_000


class Table(TorchRLModule, ValueFunctionAPI):
    """A row of numbers for each state: one for each action, and the state's value."""

    def setup(self):  # here the parts are made, not in __init__
        states, actions = self.observation_space.n, int(self.action_space.n)
        self.policy = torch.nn.Embedding(states, actions)
        self.value = torch.nn.Embedding(states, 1)
        std = self.model_config["std"]
        torch.nn.init.normal_(self.policy.weight, std=std)
        torch.nn.init.normal_(self.value.weight, std=std)

    def _forward(self, batch, **kwargs):  # for acting and for training alike
        return {Columns.ACTION_DIST_INPUTS: self.policy(batch[Columns.OBS])}

    def compute_values(self, batch, embeddings=None):  # PPO's Learner needs it
        return self.value(batch[Columns.OBS]).squeeze(-1)


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment("FrozenLake-v1", env_config={"is_slippery": False})
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .rl_module(rl_module_spec=RLModuleSpec(Table, model_config={"std": 0.01}))
    .training(
        lr=0.03,  # default 5e-5; a table takes large steps
        train_batch_size_per_learner=2048,  # default 4000: update more often
        minibatch_size=512,  # default 128: fewer, larger gradient steps
        num_epochs=6,  # default 30: reuse each batch less
        gamma=0.95,  # default 0.99; less, so that a short way is worth more
        entropy_coeff=0.01,  # default 0: keep trying until the goal is found
    )
    .evaluation(
        evaluation_interval=1_000_000,  # without one, evaluation would explore
        evaluation_duration=20,
        evaluation_config={"explore": False},
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["episode_return_mean"]
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.2f}   seconds {seconds:5.1f}"
    )
    if mean_return >= 0.8:
        greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]

module = algo.get_module()
print("What the table says of each state: its best action, and its value")
batch = {Columns.OBS: torch.arange(16)}
actions = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS].argmax(-1)
values = module.compute_values(batch)
names = ["left", "down", "right", "up"]
for row, places in enumerate(("SFFF", "FHFH", "FFFH", "HFFG")):  # the game's own map
    for column, place in enumerate(places):
        state = 4 * row + column
        best = {"H": "hole", "G": "goal"}.get(place, names[actions[state]])
        print(f"  {best:5s} {values[state].item():5.2f}", end="")
    print()
algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The table missed {TARGET} within {MAX_ENV_STEPS:,} env steps.")
