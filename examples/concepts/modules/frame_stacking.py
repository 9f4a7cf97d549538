"""Frame stacking by a connector: CartPole learned from positions alone."""

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

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 150_000
FRAMES = 4


class Positions(gym.ObservationWrapper):
    """CartPole without its speeds: where the cart is and how the pole leans."""

    observation_space = gym.spaces.Box(-5.0, 5.0, (2,), np.float32)

    def __init__(self, config):
        super().__init__(gym.make("CartPole-v1"))

    def observation(self, observation):
        return observation[[0, 2]]


class StackFrames(SingleAgentObservationPreprocessor):
    """Replaces each observation by the last few, the newest at the end."""

    def recompute_output_observation_space(self, observation_space, action_space):
        low, high = observation_space.low, observation_space.high
        return gym.spaces.Box(np.tile(low, FRAMES), np.tile(high, FRAMES))

    def preprocess(self, observation, episode):
        if episode.t == 0:  # after a reset
            return np.tile(observation, FRAMES)
        # The one before is a stack already: drop its oldest frame.
        before = episode.get_observations(-2)
        return np.concatenate([before[len(observation) :], observation])


def stack_frames(env, spaces, device):  # RLlib calls this for each env runner
    return StackFrames()


def build(env_to_module_connector):
    return (
        PPOConfig()
        .environment(Positions)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=16,
            env_to_module_connector=env_to_module_connector,
        )
        .training(
            lr=3e-3,  # default 5e-5, which suits far longer runs
            train_batch_size_per_learner=2048,  # default 4000: update more often
            minibatch_size=256,  # default 128: fewer, larger gradient steps
            num_epochs=6,  # default 30: reuse each batch less
            gamma=0.98,  # default 0.99
            lambda_=0.9,  # default 1.0: less variance in the advantages, some bias
            clip_param=0.2,  # default 0.3
            use_kl_loss=False,  # the clip alone keeps the policy near the old one
            vf_clip_param=float("inf"),  # default 10, far below squared errors here
            vf_loss_coeff=0.5,  # default 1.0
            grad_clip=0.5,  # default: none
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
        .evaluation(
            evaluation_interval=1_000_000,  # without one, evaluation would explore
            evaluation_duration=20,
            evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
        )
        .debugging(seed=SEED)
        .build_algo()
    )


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
gym.logger.min_level = gym.logger.ERROR  # no word about a second algorithm's envs
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

algo = build(stack_frames)
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
    if mean_return >= 300:
        greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]
(episode,) = algo.env_runner.sample(num_episodes=1)
algo.stop()
print("the first three observations that the network got, position and angle each:")
for observation in episode.get_observations(slice(0, 3)):
    print("   ", "  ".join(f"{number:6.3f}" for number in observation))

algo = build(None)
for _ in range(iteration):
    algo.train()
plain_return = algo.evaluate()["env_runners"]["episode_return_mean"]
algo.stop()
ray.shutdown()
print(f"without stacking, after as many iterations: return {plain_return:.1f}")
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
if plain_return >= 200:
    sys.exit("Without the speeds, one frame should not be enough.")
