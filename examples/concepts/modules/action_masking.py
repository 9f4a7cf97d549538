"""Action masking: a connector finds the legal actions, the RLModule bars the others."""

import logging
import os
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module.observation_preprocessor import (
    SingleAgentObservationPreprocessor,
)
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

SEED = int(os.environ.get("SEED", 0))
TARGET = 53  # of 20 greedy episodes; 55 at best, 51 by always taking the best job
MAX_ENV_STEPS = 80_000
# What 30 jobs are worth, in 5 chains: a job is open once those to its left are done.
VALUES = np.random.default_rng(6).integers(0, 10, (5, 6))
CHAINS, JOBS = VALUES.shape


class Chains(gym.Env):
    """One job a step. The sooner a job is done, the more it pays."""

    observation_space = gym.spaces.Box(0.0, JOBS, (CHAINS,), np.float32)
    action_space = gym.spaces.Discrete(VALUES.size)

    def __init__(self, config=None):
        self.done = np.zeros(CHAINS, np.float32)  # how many jobs of each chain

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.done[:], self.steps = 0, 0
        return self.done.copy(), {}

    def step(self, action):
        chain, job = divmod(int(action), JOBS)
        reward = 0.0
        if job == self.done[chain]:  # any other job is not open: the step is wasted
            reward = VALUES[chain, job] * 0.9**self.steps
            self.done[chain] += 1
        self.steps += 1
        return self.done.copy(), reward, self.steps == VALUES.size, False, {}


class AddMask(SingleAgentObservationPreprocessor):
    """Adds to each observation which actions are legal: 1 for an open job, else 0."""

    def recompute_output_observation_space(self, observation_space, action_space):
        mask = gym.spaces.Box(0.0, 1.0, (action_space.n,), np.float32)
        return gym.spaces.Dict({"done": observation_space, "mask": mask})

    def preprocess(self, observation, episode):
        mask = (np.arange(JOBS) == observation[:, None]).astype(np.float32)
        return {"done": observation, "mask": mask.flatten()}


class Masked(TorchRLModule, ValueFunctionAPI):
    """A policy that gives actions outside the mask a probability of 0."""

    def setup(self):
        self.policy, self.value = self._network(VALUES.size), self._network(1)

    def _network(self, outputs):
        return nn.Sequential(
            nn.Linear(CHAINS * (JOBS + 1), 64), nn.Tanh(), nn.Linear(64, outputs)
        )

    def _features(self, batch):  # a one-hot vector for each chain
        done = batch["obs"]["done"].long()
        return nn.functional.one_hot(done, JOBS + 1).flatten(1).float()

    def _forward(self, batch, **kwargs):  # the same for acting and for learning
        logits = self.policy(self._features(batch))
        if self.model_config["use_mask"]:
            illegal = batch["obs"]["mask"] == 0
            logits = logits.masked_fill(illegal, torch.finfo(logits.dtype).min)
        return {"action_dist_inputs": logits}

    def compute_values(self, batch, embeddings=None):
        return self.value(self._features(batch)).squeeze(-1)


def build(use_mask):
    return (
        PPOConfig()
        .environment(Chains)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=16,
            env_to_module_connector=lambda env, spaces, device: AddMask(),
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(Masked, model_config={"use_mask": use_mask})
        )
        .training(
            lr=3e-3,  # default 5e-5, which suits far longer runs
            train_batch_size_per_learner=1920,  # 4 episodes from each of 16 envs
            minibatch_size=480,  # default 128: fewer, larger gradient steps
            num_epochs=6,  # default 30: reuse each batch less
            gamma=1.0,  # default 0.99: the env makes late jobs worth less by itself
            lambda_=0.9,  # default 1.0: less variance in the advantages, some bias
            use_kl_loss=False,  # the clip alone keeps the policy near the old one
        )
        .evaluation(
            evaluation_interval=1_000_000,  # without one, evaluation would explore
            evaluation_duration=20,
            evaluation_config={"explore": False},
        )
        .debugging(seed=SEED)
        .build_algo()
    )


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
gym.logger.min_level = gym.logger.ERROR  # no word about a second algorithm's envs
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

algo = build(use_mask=True)
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["episode_return_mean"]
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   seconds {seconds:5.1f}"
    )
    if mean_return >= 0.95 * TARGET:
        greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]
(episode,) = algo.env_runner.sample(num_episodes=1)
algo.stop()
print("what the connector made of the observation after 10 steps:")
observation = episode.get_observations(10)
print("    done", observation["done"].astype(int))
for row in observation["mask"].reshape(CHAINS, JOBS).astype(int):
    print("    mask", row)

algo = build(use_mask=False)
for _ in range(iteration):
    algo.train()
plain_return = algo.evaluate()["env_runners"]["episode_return_mean"]
algo.stop()
ray.shutdown()
print(f"without the mask, after as many iterations: return {plain_return:.1f}")
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
if plain_return >= 46:
    sys.exit("Without the mask it should do worse than a random order of jobs: 47.")
