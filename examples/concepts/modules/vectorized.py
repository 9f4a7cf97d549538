"""What num_envs_per_env_runner changes: as many steps, fewer calls of the network."""

import logging
import sys
import time

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

ENV_STEPS = 4096

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray").setLevel(logging.ERROR)  # no banner about API stacks


def count_calls(module):
    """A list that grows by the batch size whenever the network is asked for actions."""
    calls, forward = [], module.forward_exploration

    def counted(batch, **kwargs):
        calls.append(len(batch["obs"]))
        return forward(batch, **kwargs)

    module.forward_exploration = counted
    return calls


for num_envs in (1, 4, 16, 64):
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_envs_per_env_runner=num_envs)
        .debugging(seed=0)
    )
    runner = SingleAgentEnvRunner(config=config)

    calls = count_calls(runner.module)
    runner.sample(num_timesteps=64)  # warm up
    calls.clear()
    start = time.perf_counter()
    episodes = runner.sample(num_timesteps=ENV_STEPS)
    seconds = time.perf_counter() - start
    env_steps = sum(len(episode) for episode in episodes)
    runner.stop()
    print(
        f"{num_envs:3d} envs: {env_steps:,} env steps, {len(calls):,} calls of the "
        f"network, {env_steps / seconds:6,.0f} env steps a second"
    )
    if not ENV_STEPS <= env_steps < ENV_STEPS + num_envs:
        sys.exit("The runner should stop in the step that completes the number.")
    if set(calls) != {num_envs}:
        sys.exit("Each call of the network should serve all envs.")
