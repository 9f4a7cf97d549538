"""Which observation and action spaces RLlib's default network takes."""

import logging
import sys

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

for name in ("ray", "ray.rllib"):
    logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are shown below
gym.logger.min_level = gym.logger.ERROR  # no word about building many envs


class RandomEnv(gym.Env):
    """Any spaces: its observations are random, its rewards 0."""

    def __init__(self, config):
        self.observation_space, self.action_space = config["spaces"]

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 0.0, False, False, {}


def try_out(observation_space, action_space, flatten):
    """Sample 8 steps with an EnvRunner: "yes", or the error."""
    config = PPOConfig().environment(
        RandomEnv, env_config={"spaces": (observation_space, action_space)}
    )
    if flatten:
        config.env_runners(
            env_to_module_connector=lambda env, spaces, device: FlattenObservations()
        )
    try:
        SingleAgentEnvRunner(config=config).sample(num_timesteps=8)
    except Exception as error:  # RLlib raises many kinds
        return type(error).__name__
    return "yes"


box, four = Box(-1, 1, (3,), np.float32), Discrete(4)
observation_spaces = {
    "Box of floats": box,
    "Box of bytes (an image)": Box(0, 255, (64, 64, 3), np.uint8),
    "Discrete": four,
    "MultiDiscrete": MultiDiscrete([2, 3]),
    "MultiBinary": MultiBinary(4),
    "Dict": Dict(where=box, what=four),
    "Tuple": Tuple([box, four]),
}
print(f"{'observation space':25s} {'as it is':15s} with FlattenObservations")
for name, space in observation_spaces.items():
    plain, flat = (try_out(space, Discrete(2), flatten) for flatten in (False, True))
    print(f"{name:25s} {plain:15s} {flat}")
    if flat != "yes" or (plain == "yes") != (name == "Box of floats"):
        sys.exit(f"{name}: this is no longer what RLlib takes.")

action_spaces = {
    "Discrete": four,
    "Box": Box(-2, 2, (2,), np.float32),
    "MultiDiscrete": MultiDiscrete([2, 3]),
    "Dict": Dict(steer=box, gear=four),
    "Tuple": Tuple([four, four]),
    "MultiBinary": MultiBinary(4),
}
print(f"\n{'action space':25s} as it is")
for name, space in action_spaces.items():
    outcome = try_out(box, space, flatten=False)
    print(f"{name:25s} {outcome}")
    if (outcome == "yes") != (name != "MultiBinary"):
        sys.exit(f"{name}: this is no longer what RLlib takes.")
