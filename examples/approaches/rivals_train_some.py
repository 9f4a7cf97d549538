"""Train one policy of two: a kicker learns to beat a keeper who learns nothing."""

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
# How often a kick (row: left, right) scores against a dive (column: left, right).
SCORES = np.array([[0.2, 1.0], [0.5, 0.3]])
ITERATIONS = 20


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


def weights(agent):
    """All of a policy's weights: where it learns, and the copy that plays."""
    learner = algo.learner_group.get_weights()[agent].values()
    state = algo.env_runner.get_state(components="rl_module")
    player = state["rl_module"][agent].values()
    return np.concatenate([np.ravel(values) for values in [*learner, *player]])


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment(Penalties)
    .multi_agent(
        policies={"kicker", "keeper"},
        policy_mapping_fn=lambda agent_id, episode, **kwargs: agent_id,
        policies_to_train=["kicker"],  # default None: all of them
    )
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=1e-3,
        train_batch_size_per_learner=1024,
        minibatch_size=1024,
        num_epochs=10,
        gamma=0.0,  # default 0.99: but a kick changes nothing for the next one
        use_kl_loss=False,
    )
    .debugging(seed=SEED)
)
algo = config.build_algo()
before = {agent: weights(agent) for agent in ("kicker", "keeper")}
start = time.perf_counter()
for iteration in range(1, ITERATIONS + 1):
    result = algo.train()
    goals = result["env_runners"]["agent_episode_returns_mean"]["kicker"]
    print(
        f"iteration {iteration:3d}   "
        f"env steps {int(result['num_env_steps_sampled_lifetime']):7,d}   "
        f"mean return {goals:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )

changes = {agent: np.abs(weights(agent) - before[agent]) for agent in before}
for agent, change in changes.items():
    print(f"{agent}: {np.count_nonzero(change)} of {change.size} weights changed")
kicks, dives = strategy("kicker"), strategy("keeper")
algo.stop()
ray.shutdown()

goals, best = 10 * kicks @ SCORES @ dives, 10 * (SCORES @ dives).max()
print(f"left: {dives[0]:.0%} of the keeper's dives, {kicks[0]:.0%} of the kicks")
print(f"goals in ten kicks: {goals:.2f}; the best answer to this keeper: {best:.2f}")
if changes["keeper"].any() or not changes["kicker"].any():
    sys.exit("Only the kicker's weights should have changed.")
if goals < best - 0.2:
    sys.exit("The kicker did not learn the best answer to this keeper.")
