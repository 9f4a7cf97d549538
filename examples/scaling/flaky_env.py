"""An environment that raises, hangs and returns NaN, and an agent that learns in it."""

import logging
import math
import os
import random
import signal
import sys
import time
import warnings

import gymnasium as gym
import numpy as np
import ray
import torch
import tree  # dm_tree, which comes with RLlib: the leaves of a dict or tuple
from gymnasium.envs.classic_control import CartPoleEnv
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.env_errors import StepFailedRecreateEnvError

SEED = int(os.environ.get("SEED", 0))
TARGET = 195  # mean return of 20 greedy episodes; acting at random gives about 22
HANGS_AFTER = 1.0  # seconds: no honest step of this simulator takes so long

warnings.filterwarnings("ignore", ".*Overriding environment")  # at each new one
torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")


class FlakyCartPole(CartPoleEnv):
    """One call in 1,500 goes wrong, in turn in one of three ways."""

    chance = random.Random(SEED)
    steps = 0  # of all environments together: they live in this process
    faults = dict.fromkeys(["raised", "hung", "NaN"], 0)

    def reset(self, *, seed=None, options=None):
        factor = self.perhaps_fail()
        observation, info = super().reset(seed=seed, options=options)
        return observation * np.float32(factor), info

    def step(self, action):
        FlakyCartPole.steps += 1
        factor = self.perhaps_fail()
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward * factor, terminated, truncated, info

    def perhaps_fail(self):
        if self.chance.random() > 1 / 1500:
            return 1.0
        fault = min(self.faults, key=self.faults.get)
        self.faults[fault] += 1
        if fault == "raised":
            raise ConnectionError("the simulator is gone")
        if fault == "hung":
            time.sleep(3600)
        return math.nan


class Guard(gym.Wrapper):
    """Makes one clean error of what the simulator does wrong: RLlib can handle that."""

    # What the simulator may raise. Anything else is a bug, and shall look like one.
    FAULTS = (ConnectionError, TimeoutError, FloatingPointError)

    def __init__(self, env_config):
        super().__init__(gym.wrappers.TimeLimit(FlakyCartPole(), 500))
        signal.signal(signal.SIGALRM, self.too_slow)

    @staticmethod
    def too_slow(*_):
        raise TimeoutError(f"no answer after {HANGS_AFTER} s")

    def guarded(self, call, *args, **kwargs):
        signal.setitimer(signal.ITIMER_REAL, HANGS_AFTER)
        try:
            answer = call(*args, **kwargs)
            if not all(np.isfinite(leaf).all() for leaf in tree.flatten(answer[0])):
                raise FloatingPointError("NaN or infinity in the observation")
            if len(answer) == 5 and not math.isfinite(answer[1]):
                raise FloatingPointError("NaN or infinity in the reward")
            return answer
        except self.FAULTS as error:
            # With any other error RLlib does the same, and logs its traceback.
            raise StepFailedRecreateEnvError(str(error)) from error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def reset(self, **kwargs):
        return self.guarded(self.env.reset, **kwargs)

    def step(self, action):
        return self.guarded(self.env.step, action)


def greedy_return_of(module, first_seed, episodes=20):
    """The mean return of whole episodes in the CartPole that works, without chance."""
    env, total = gym.make("CartPole-v1"), 0.0
    for episode in range(episodes):
        observation, _ = env.reset(seed=first_seed + episode)
        done = False
        while not done:
            with torch.no_grad():
                out = module.forward_inference({"obs": torch.tensor(observation)[None]})
            action = out["action_dist_inputs"].argmax().item()
            observation, reward, terminated, truncated, _ = env.step(action)
            total += reward
            done = terminated or truncated
    return total / episodes


config = (
    PPOConfig()
    .environment(Guard)
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(lr=3e-3, train_batch_size_per_learner=2048, num_epochs=6)
    # Make new environments and go on, instead of ending with the first error.
    .fault_tolerance(restart_failed_sub_environments=True)
    .debugging(seed=SEED)
)
algo = config.build_algo()

start = time.perf_counter()
for iteration in range(1, 81):
    result = algo.train()
    print(
        f"iteration {iteration:3d}   "
        f"env steps {int(result['num_env_steps_sampled_lifetime']):7,d}   "
        f"mean return {result['env_runners']['episode_return_mean']:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
    if min(FlakyCartPole.faults.values()) < 2:
        continue  # it shall have met each fault twice
    if greedy_return_of(algo.get_module(), first_seed=10**6) > 1.3 * TARGET:
        break

module = algo.get_module()
algo.stop()
ray.shutdown()
print("faults   " + "   ".join(f"{n}: {k}" for n, k in FlakyCartPole.faults.items()))
counted = int(result["num_env_steps_sampled_lifetime"])
print(f"env steps taken {FlakyCartPole.steps:,}, counted by RLlib {counted:,}")

greedy_return = greedy_return_of(module, 1000 * SEED)
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The agent did not learn: it should reach {TARGET}.")
