"""Nim, a game of turns: two rivals learn from one another, up to perfect play."""

import logging
import os
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.multi_agent_env import MultiAgentEnv

SEED = int(os.environ.get("SEED", 0))
TARGET = 0.9  # mean return against a perfect player, who punishes every mistake
MAX_ENV_STEPS = 80_000
HEAP = 21


class Nim(MultiAgentEnv):
    """Players take one, two or three matches in turn; who takes the last one wins."""

    def __init__(self, config=None):
        super().__init__()
        self.agents = self.possible_agents = ["ann", "ben"]
        heap = gym.spaces.Box(0.0, 1.0, (HEAP + 1,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, heap)
        self.action_spaces = dict.fromkeys(self.agents, gym.spaces.Discrete(3))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.heap = int(self.np_random.integers(4, HEAP + 1))
        self.player, self.waiting = self.np_random.permutation(self.agents).tolist()
        return {self.player: self._view()}, {}  # whoever sees something acts next

    def step(self, actions):  # holds one action: that of the player whose turn it is
        self.heap -= min(actions[self.player] + 1, self.heap)
        if self.heap == 0:  # one has moved, but both get a reward
            rewards = {self.player: 1.0, self.waiting: -1.0}
            return {}, rewards, {"__all__": True}, {"__all__": False}, {}
        self.player, self.waiting = self.waiting, self.player
        going_on = {"__all__": False}
        return {self.player: self._view()}, {}, going_on, going_on, {}

    def _view(self):
        return np.eye(HEAP + 1, dtype=np.float32)[self.heap]


def against_perfect_player(agent, games=100):
    """Greedy play from positions that a perfect player would win."""
    with torch.no_grad():  # the best move for every heap, in one forward pass
        batch = {"obs": torch.eye(HEAP + 1)}
        logits = algo.get_module(agent).forward_inference(batch)["action_dist_inputs"]
    moves, random, wins = logits.argmax(-1).numpy() + 1, np.random.default_rng(SEED), 0
    for _ in range(games):
        heap = int(random.choice([n for n in range(4, HEAP + 1) if n % 4]))
        while True:
            heap -= moves[heap]
            if heap <= 0:
                wins += 1
                break
            heap -= heap % 4 or random.integers(1, 4)  # perfect: leave a multiple of 4
            if heap <= 0:
                break
    return (2 * wins - games) / games


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment(Nim)
    .multi_agent(
        policies={"ann", "ben"},
        policy_mapping_fn=lambda agent_id, episode, **kwargs: agent_id,
    )
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=2e-3,
        train_batch_size_per_learner=2048,  # env steps; here one agent acts in each
        minibatch_size=512,
        num_epochs=6,
        lambda_=0.8,  # default 1.0: a good move is not blamed for later mistakes
        entropy_coeff=0.1,  # default 0.0: no move is given up for good too early
        use_kl_loss=False,
        grad_clip=0.5,
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, -1.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    # The return in training says nothing: when both get better, it stays at 0.
    greedy_return = min(against_perfect_player(agent) for agent in ("ann", "ben"))
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {greedy_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )

algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.1f} over 100 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The players missed {TARGET} within {MAX_ENV_STEPS:,} env steps.")
