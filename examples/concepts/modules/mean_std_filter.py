"""A filter in front of the network: the same agent learns with it, and not without."""

import logging
import os
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 100_000


class Sensors(gym.ObservationWrapper):
    """CartPole in millimetres from the left end of the track, and in degrees."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)

    def __init__(self, config):
        super().__init__(gym.make("CartPole-v1"))

    def observation(self, observation):
        position, speed, angle, turning = observation
        in_degrees = np.degrees([angle, turning])
        return np.array([2400 + 1000 * position, 1000 * speed, *in_degrees], np.float32)


def make_filter(env, spaces, device):  # RLlib calls this for each env runner
    return MeanStdFilter()


def build(env_to_module_connector):
    return (
        PPOConfig()
        .environment(Sensors)
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
        .debugging(seed=SEED)
        .build_algo()
    )


def evaluate(algo):
    """Mean return of 20 greedy episodes, with the filter of the training env runner."""
    config = algo.config.copy(copy_frozen=False).env_runners(num_envs_per_env_runner=20)
    runner = SingleAgentEnvRunner(config=config)
    runner.set_state(algo.env_runner.get_state())  # RLlib forgets the filter
    episodes = runner.sample(num_episodes=20, explore=False)
    runner.stop()
    return np.mean([episode.get_return() for episode in episodes])


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
gym.logger.min_level = gym.logger.ERROR  # no word about a second algorithm's envs
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

algo = build(make_filter)
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
    if mean_return >= 200:
        greedy_return = evaluate(algo)
algo.stop()

algo = build(None)
for _ in range(iteration):
    algo.train()
plain_return = evaluate(algo)
algo.stop()
ray.shutdown()
print(f"without the filter, after as many iterations: return {plain_return:.1f}")
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
if plain_return >= 200:
    sys.exit("Without the filter it should not learn.")
