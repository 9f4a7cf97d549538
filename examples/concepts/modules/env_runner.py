"""What an EnvRunner returns, sampled by hand: no Algorithm, no Ray."""

import logging
import sys

import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray").setLevel(logging.ERROR)  # no banner about API stacks

config = PPOConfig().environment("CartPole-v1").debugging(seed=0)
config.env_runners(num_envs_per_env_runner=2)
runner = SingleAgentEnvRunner(config=config)

print("sample(num_episodes=2) returns whole episodes:")
whole = runner.sample(num_episodes=2)
for episode in whole:
    print(f"  {len(episode)} steps, return {episode.get_return():.0f}")
    if not episode.is_done:
        sys.exit("These should be whole episodes.")

episode = whole[0]
contents = {
    "get_observations()": episode.get_observations(),
    "get_actions()": episode.get_actions(),
    "get_rewards()": episode.get_rewards(),
}
for key in episode.extra_model_outputs:
    contents[f"extra output {key}"] = episode.get_extra_model_outputs(key)
print("The first one holds these shapes:")
for name, values in contents.items():
    print(f"  {name:32s}{np.shape(values)}")
if len(episode.get_observations()) != len(episode.get_actions()) + 1:
    sys.exit("There should be one observation more than actions: the last one.")

print("sample(num_timesteps=20), twice, returns pieces:")
pieces = runner.sample(num_timesteps=20) + runner.sample(num_timesteps=20)
names = {}
for piece in pieces:
    name = names.setdefault(piece.id_, "ABCDEFGH"[len(names)])
    end = "done" if piece.is_done else "goes on"
    print(f"  episode {name}: steps {piece.t_started:2d} to {piece.t:2d}, {end}")
if len(names) == len(pieces):
    sys.exit("At least one episode should come in two pieces.")
runner.stop()
