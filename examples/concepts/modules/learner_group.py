"""One update by a Learner in this process, by one in an actor, and by two actors."""

import copy
import logging
import os
import sys

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

SEED = int(os.environ.get("SEED", 0))


class PlainPPOLearner(PPOTorchLearner):
    """PPO with plain gradient descent: Adam's first step shows only the signs."""

    def configure_optimizers_for_module(self, module_id, config=None):
        parameters = self.get_parameters(self.module[module_id])
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.SGD(parameters, lr=config.lr),
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
gym.logger.min_level = gym.logger.ERROR  # no word about a second algorithm's envs
ray.init(
    "local",
    num_cpus=4,  # so many actors may run, on however few cores
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)


def build(num_learners):
    config = PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=0)
    config.learners(num_learners=num_learners, learner_class=PlainPPOLearner)
    config.training(lr=0.1, num_epochs=1, minibatch_size=None)  # one gradient step
    config.debugging(seed=SEED)  # the same first weights for all
    return config.build_algo()


def flat(weights):
    """All weights of a policy in one vector."""
    return np.concatenate([np.ravel(weight) for weight in weights.values()])


algos = {number: build(number) for number in (0, 1, 2)}
episodes = algos[0].env_runner.sample(num_timesteps=2000)
episodes.sort(key=len, reverse=True)  # actors get them so; now all sum up alike
changed = {}
print("num_learners  processes  parts of the batch  distance moved")
for number, algo in algos.items():
    group = algo.learner_group
    before = flat(group.get_weights()["default_policy"])
    results = group.update(episodes=copy.deepcopy(episodes))
    states = group.foreach_learner(
        lambda learner: (
            os.getpid(),
            learner.get_state("rl_module")["rl_module"]["default_policy"],
        )
    )
    found = [state.get() for state in states]
    weights = [flat(weights) for _, weights in found]
    for others in weights[1:]:
        if not np.array_equal(weights[0], others):
            sys.exit("After an update all Learners should hold the same weights.")
    changed[number] = weights[0] - before
    where = "this one" if found[0][0] == os.getpid() else f"{len(found)} more"
    sizes = [
        int(result["default_policy"]["num_module_steps_trained"]) for result in results
    ]
    print(
        f"{number:12d}  {where:9s}  {sizes!s:18s}  "
        f"{np.linalg.norm(changed[number]):.4f}"
    )
    algo.stop()
ray.shutdown()

local, remote, two = changed.values()
apart = [np.linalg.norm(x - local) / np.linalg.norm(local) for x in (remote, two)]
print(f"the actor's step differs from the first by {apart[0]:.3%} of its length")
print(f"the step of the two actors differs by      {apart[1]:.3%}")
if apart[0] > 0.0001:
    sys.exit("The place of a Learner should not change what it learns.")
if not apart[0] < apart[1] < 0.5:
    sys.exit("Two learners should take nearly, not exactly, the step of one.")
