"""One NaN in a reward or an observation: how far it gets, and where the run ends."""

import logging
import math
import os
import sys
import warnings

import numpy as np
import ray
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))

warnings.filterwarnings("ignore", ".*Overriding environment")  # at each new one
torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")


class NanCartPole(CartPoleEnv):
    """Gives one NaN, in its 200th step."""

    def __init__(self, env_config):
        super().__init__()
        self.where, self.steps = env_config["where"], 0

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        if self.steps == 200 and self.where == "reward":
            reward = math.nan
        if self.steps == 200 and self.where == "observation":
            observation = np.full_like(observation, math.nan)
        return observation, reward, terminated, truncated, info


def weights_of(algo):
    """All weights that learn, as one vector."""
    weights = algo.get_module().parameters()
    return torch.cat([weight.detach().flatten().clone() for weight in weights])


CASES = [  # where the NaN is, and torch_skip_nan_gradients
    ("reward", False),
    ("reward", True),
    ("observation", False),
]
seen = {}
for where, skip in CASES:
    config = (
        PPOConfig()
        .environment(NanCartPole, env_config={"where": where})
        .env_runners(num_env_runners=0)
        .training(train_batch_size_per_learner=500, minibatch_size=250, num_epochs=2)
        .framework(torch_skip_nan_gradients=skip)  # False by default
        .debugging(seed=SEED, log_level="ERROR")
    )
    algo = config.build_algo()
    print(f"NaN in the {where} of step 200" + skip * ", torch_skip_nan_gradients=True")
    seen[where, skip] = []
    for iteration in 1, 2:
        before = weights_of(algo)
        try:
            result = algo.train()
        except Exception as error:
            seen[where, skip].append(type(error).__name__)
            print(f"   train() {iteration}: {type(error).__name__}:")
            print(f"      {error}")
            break
        after = weights_of(algo)
        changed, nans = int((after != before).sum()), int(after.isnan().sum())
        seen[where, skip].append((changed, nans))
        print(
            f"   train() {iteration}:"
            f"  mean return {result['env_runners']['episode_return_mean']:.1f}"
            f"  loss {result['learners']['default_policy']['total_loss']:.1f}"
            f"  weights changed {changed:,}, NaN {nans:,}"
        )
    algo.stop()
ray.shutdown()
if seen["reward", False][0] != (0, 0) or seen["reward", False][1][0] == 0:
    sys.exit("By default, the batch with the NaN should change nothing, the next all.")
if seen["reward", True][0][1] == 0:
    sys.exit("With torch_skip_nan_gradients=True, the weights should become NaN.")
if seen["observation", False] != ["RuntimeError"]:
    sys.exit("A NaN in an observation should end the sampling.")
