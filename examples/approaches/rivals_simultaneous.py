"""Penalty kicks: two rivals who move at the same time learn to be unpredictable."""

import logging
import os
import sys

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.multi_agent_env import MultiAgentEnv

SEED = int(os.environ.get("SEED", 0))
# How often a kick (row: left, right) scores against a dive (column: left, right).
# The best either can do: kick left in 20 % and dive left in 70 % of all cases.
SCORES = np.array([[0.2, 1.0], [0.5, 0.3]])
MAX_GAIN = 0.10  # goals a kick; against rivals who toss a coin it would be 0.25


class Penalties(MultiAgentEnv):
    """Ten kicks. Both choose before they see what the other does."""

    def __init__(self, config=None):
        super().__init__()
        self.agents = self.possible_agents = ["kicker", "keeper"]
        nothing = gym.spaces.Box(1.0, 1.0, (1,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, nothing)
        self.action_spaces = dict.fromkeys(self.agents, gym.spaces.Discrete(2))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.kicks = 0
        return self._nothing_to_see(), {}

    def step(self, actions):  # holds the actions of both
        chance = SCORES[actions["kicker"], actions["keeper"]]
        goal = float(self.np_random.random() < chance)
        self.kicks += 1
        rewards = {"kicker": goal, "keeper": -goal}  # what one wins, the other loses
        over = {"__all__": self.kicks == 10}
        return self._nothing_to_see(), rewards, over, {"__all__": False}, {}

    def _nothing_to_see(self):
        return {agent: np.ones(1, np.float32) for agent in self.agents}


def strategy(agent):
    """How often the agent plays left and right: its policy's probabilities."""
    with torch.no_grad():
        out = algo.get_module(agent).forward_inference({"obs": torch.ones(1, 1)})
    return out["action_dist_inputs"].softmax(-1)[0].numpy().astype(float)


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
gym.logger.min_level = gym.logger.ERROR  # no word about a second env runner's envs
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

gains = []
for entropy_coeff in (0.0, 0.2):  # 0.2 pays for trying both sides; default 0.0
    config = (
        PPOConfig()
        .environment(Penalties)
        .multi_agent(
            policies={"kicker", "keeper"},
            policy_mapping_fn=lambda agent_id, episode, **kwargs: agent_id,
        )
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .training(
            lr=1e-3,
            train_batch_size_per_learner=1024,
            minibatch_size=1024,
            num_epochs=10,
            gamma=0.0,  # default 0.99: but a kick changes nothing for the next one
            entropy_coeff=entropy_coeff,
            use_kl_loss=False,
        )
        .debugging(seed=SEED)
    )
    algo = config.build_algo()
    played = []
    for iteration in range(1, 25):
        result = algo.train()
        played.append((strategy("kicker"), strategy("keeper")))
        if iteration % 3 == 0:
            # Of one side: the mean return of both together is always 0.
            goals = result["env_runners"]["agent_episode_returns_mean"]["kicker"]
            print(
                f"iteration {iteration:3d}   kicks left {played[-1][0][0]:4.0%}   "
                f"dives left {played[-1][1][0]:4.0%}   goals in ten kicks {goals:.1f}"
            )
    algo.stop()

    # What could a rival gain who knew how this kicker and this keeper play?
    kicks, dives = np.mean(played[12:], axis=0)  # their habits in the second half
    gains.append((SCORES @ dives).max() - (kicks @ SCORES).min())
    print(
        f"entropy_coeff {entropy_coeff}: kicks left {kicks[0]:.0%}, dives left "
        f"{dives[0]:.0%}; perfect rivals would gain {gains[-1]:.2f} goals a kick\n"
    )

ray.shutdown()
if not gains[1] < MAX_GAIN < gains[0]:
    sys.exit(f"Only with an entropy bonus should the gain stay below {MAX_GAIN}.")
