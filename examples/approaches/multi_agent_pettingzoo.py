"""A game from PettingZoo: tic-tac-toe, learned against a player who plays anything."""

import logging
import os
import sys
import time

os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"  # no greeting from pygame

import gymnasium as gym
import numpy as np
import ray
import torch
from pettingzoo.classic import tictactoe_v3  # pip install pettingzoo pygame
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.wrappers.pettingzoo_env import PettingZooEnv
from ray.tune.registry import register_env
from torch import nn

SEED = int(os.environ.get("SEED", 0))
TARGET = 0.8  # mean return of 200 games against a random player; 1 is a win, -1 a loss
MAX_ENV_STEPS = 150_000


class RandomPlayer(RLModule):
    """Plays on any free field. It has no weights, so it is no TorchRLModule."""

    def _forward(self, batch, **kwargs):
        free = batch["obs"]["action_mask"].float()
        return {"actions": torch.multinomial(free, 1)[:, 0]}


class Player(TorchRLModule, ValueFunctionAPI):
    """A policy that gives occupied fields a probability of 0."""

    def setup(self):
        self.policy, self.value = self._network(9), self._network(1)

    def _network(self, outputs):
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(18, 128),
            nn.Tanh(),
            nn.Linear(128, 128),
            nn.Tanh(),
            nn.Linear(128, outputs),
        )

    def _forward(self, batch, **kwargs):  # the same for acting and for learning
        logits = self.policy(batch["obs"]["observation"].float())
        occupied = batch["obs"]["action_mask"] == 0
        smallest = torch.finfo(logits.dtype).min
        return {"action_dist_inputs": logits.masked_fill(occupied, smallest)}

    def compute_values(self, batch, embeddings=None):
        return self.value(batch["obs"]["observation"].float()).squeeze(-1)


def against_random_player(module, games=200):
    """Mean return of greedy play, one half of the games as each player."""
    random, total = np.random.default_rng(SEED), 0.0
    for game in range(games):
        env = tictactoe_v3.env()
        env.reset()
        me = env.possible_agents[game % 2]
        for agent in env.agent_iter():
            observation, reward, terminated, truncated, _ = env.last()
            if agent == me:
                total += reward
            if terminated or truncated:
                action = None
            elif agent == me:
                batch = {
                    "obs": {k: torch.tensor(v[None]) for k, v in observation.items()}
                }
                with torch.no_grad():
                    logits = module.forward_inference(batch)["action_dist_inputs"]
                action = logits.argmax().item()
            else:
                action = random.choice(np.flatnonzero(observation["action_mask"]))
            env.step(action)
    return total / games


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
gym.logger.min_level = gym.logger.ERROR
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")


def who_plays(agent_id, episode, **kwargs):
    """The learner is player_1 in one half of the games, player_2 in the other."""
    learner = f"player_{1 + hash(episode.id_) % 2}"
    return "learner" if agent_id == learner else "random"


register_env("tictactoe", lambda config: PettingZooEnv(tictactoe_v3.env()))

config = (
    PPOConfig()
    .environment("tictactoe")
    .multi_agent(
        policies={"learner", "random"},
        policy_mapping_fn=who_plays,
        policies_to_train=["learner"],
    )
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .rl_module(
        rl_module_spec=MultiRLModuleSpec(
            rl_module_specs={
                "learner": RLModuleSpec(Player),
                "random": RLModuleSpec(RandomPlayer),
            }
        )
    )
    .training(
        lr=1e-3,  # default 5e-5, which suits far longer runs
        train_batch_size_per_learner=2048,
        minibatch_size=512,  # default 128: fewer, larger gradient steps
        num_epochs=6,  # default 30: reuse each batch less
        lambda_=0.8,  # default 1.0: a good move is not blamed for later mistakes
        entropy_coeff=0.01,  # default 0: keep trying other moves
        use_kl_loss=False,  # the clip alone keeps the policy near the old one
        grad_clip=0.5,  # default: none
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, -1.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    greedy_return = against_random_player(algo.get_module("learner"))
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {greedy_return:6.2f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.2f} over 200 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The player missed {TARGET} within {MAX_ENV_STEPS:,} env steps.")
