"""The same CartPole in gym, as written before 0.26, in gym 0.26 and in Gymnasium."""

import sys

import gym  # says on stderr that nobody maintains it any more
import gymnasium
import numpy as np
from gym.wrappers.compatibility import EnvCompatibility

for package in (gym, gymnasium):  # CartPole-v0 is out of date: on purpose
    package.logger.min_level = package.logger.ERROR


class OldCartPole(gym.Env):
    """How environments looked until gym 0.25: four values, `done` for every end."""

    def __init__(self):
        self.cartpole = gym.make("CartPole-v0", disable_env_checker=True)
        self.observation_space = self.cartpole.observation_space
        self.action_space = self.cartpole.action_space
        self.random_seed = None

    def seed(self, seed):
        self.random_seed = seed

    def reset(self):
        observation, _ = self.cartpole.reset(seed=self.random_seed)
        return observation

    def step(self, action):
        step = self.cartpole.step(action)
        observation, reward, terminated, truncated, info = step
        if truncated:  # as gym's own time limit said it
            info["TimeLimit.truncated"] = True
        return observation, reward, terminated or truncated, info


def balance(observation):
    """Keeps the pole up until the time limit of 200 steps."""
    return int(observation[2] + 0.3 * observation[3] > 0)


# 1. Written before 0.26: reset() gives one value, step() four.
old = OldCartPole()
old.seed(3)
first, steps, done = old.reset(), 0, False
observation = first
while not done:
    observation, reward, done, info = old.step(balance(observation))
    steps += 1
print(f"before 0.26    reset: observation         step: 4 values, done={done}")
print(f"               after {steps} steps; info: {info}")

# 2. gym 0.26: reset() takes the seed and gives two values, step() gives five.
# disable_env_checker: the checker asks for np.bool8, which NumPy 2 does not have.
new = gym.make("CartPole-v0", disable_env_checker=True)
second, info = new.reset(seed=3)
print("gym 0.26       reset: observation, info   step: 5 values", end="")
print(f", e.g. {new.step(0)[1:]}")

# 3. Gymnasium, which RLlib uses: the same five values, but other classes.
today = gymnasium.make("CartPole-v0")
third, info = today.reset(seed=3)
print("Gymnasium      reset: observation, info   step: 5 values", end="")
print(f", e.g. {today.step(0)[1:]}")
alike = np.allclose(first, second) and np.allclose(second, third)
print(f"one seed, the same first observation in all three: {alike}")
for module in (gym, gymnasium):
    same = isinstance(new.observation_space, module.spaces.Box)
    print(f"gym's space is a {module.__name__}.spaces.Box: {same}")

# 4. gym 0.26 brings the bridge from four values to five.
bridge = EnvCompatibility(old)
observation, info = bridge.reset(seed=3)
terminated = truncated = False
while not (terminated or truncated):
    step = bridge.step(balance(observation))
    observation, reward, terminated, truncated, info = step
print(f"the old one over the bridge: {terminated=}, {truncated=}")

if not alike or isinstance(new.observation_space, gymnasium.spaces.Space):
    sys.exit("The three CartPoles differ in other ways than this page says.")
if terminated or not truncated:
    sys.exit("The bridge should tell the time limit from a fall.")
