"""Which metric is where: one result of algo.train(), as a tree with meanings."""

import logging
import math
import os
import sys

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))

# The keys that one needs most, and what RLlib puts there.
MEANING = {
    "training_iteration": "calls of train() so far",
    "num_env_steps_sampled_lifetime": "env steps so far",
    "time_this_iter_s": "seconds that this train() took",
    "env_runners/episode_return_mean": "the last 100 episodes of this train()",
    "env_runners/episode_return_min": "the worst of these",
    "env_runners/episode_return_max": "the best of these",
    "env_runners/episode_len_mean": "their length",
    "env_runners/num_episodes": "how many ended in this train()",
    "env_runners/num_env_steps_sampled": "env steps of this train()",
    "env_runners/cart_at_end": "a metric of our own, from the callback",
    "learners/__all_modules__/num_module_steps_trained": "rows, each epoch counts",
    "learners/default_policy/total_loss": "of the last minibatch",
    "learners/default_policy/policy_loss": "a part of it",
    "learners/default_policy/vf_loss": "a part of it: the value function",
    "learners/default_policy/entropy": "how random the policy is",
    "learners/default_policy/default_optimizer_learning_rate": "lr in use",
    "evaluation/env_runners/episode_return_mean": "of the last evaluation, or nan",
    "timers/env_runner_sampling_timer": "seconds, a moving average",
    "timers/learner_update_timer": "seconds, a moving average",
    "config/lr": "every setting in use",
}


def log_cart(episode, metrics_logger, **_):
    position = abs(float(episode.get_observations(-1)[0]))
    metrics_logger.log_value("cart_at_end", position, reduce="mean")


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0)
    .training(train_batch_size_per_learner=1000, minibatch_size=250, num_epochs=3)
    .evaluation(evaluation_interval=3, evaluation_duration=5)  # each third train()
    .callbacks(on_episode_end=log_cart)
    .debugging(seed=SEED)
)
algo = config.build_algo()
results = [algo.train() for _ in range(5)]
algo.stop()
ray.shutdown()


def find(path, value=results[2]):
    """The value at env_runners/episode_return_mean or the like."""
    for key in path.split("/"):
        if key not in value:
            sys.exit(f"The result has no {path}.")
        value = value[key]
    return value


above = []
for path, meaning in MEANING.items():
    *folders, key = path.split("/")
    for depth, name in enumerate(folders):
        if folders[: depth + 1] != above[: depth + 1]:
            print("  " * depth + name)
    above = folders
    print(f"{'  ' * len(folders) + key:35s} {find(path):10.5g}  {meaning}")

if find("training_iteration") != 3:
    sys.exit("Three calls of train() should be three iterations.")
steps = sum(find("env_runners/num_env_steps_sampled", one) for one in results[:3])
if find("num_env_steps_sampled_lifetime") != steps:
    sys.exit("The env steps of all iterations should make the lifetime's.")

print("the evaluation in the results of five calls, of which the third evaluates:")
evaluated = "evaluation/env_runners/episode_return_mean"
seen = [find(evaluated, one) if "evaluation" in one else None for one in results]
print("   ", *("absent" if one is None else f"{one:.1f}" for one in seen))
if seen[:2] != [None, None] or seen[3] != seen[2] or not math.isnan(seen[4]):
    sys.exit(
        "An evaluation should stay once in the next result, and be nan after that."
    )
