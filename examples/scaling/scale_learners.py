"""PPO's update by a learner in this process, by one learner actor, and by two."""

import logging
import os
import statistics
import sys
import time

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

os.environ.update({"RAY_worker_niceness": "0"})  # else other programs come first
SEED = int(os.environ.get("SEED", 0))
BATCH, MINIBATCH, EPOCHS, ITERATIONS = 2048, 512, 4, 4

torch.set_num_threads(1)  # one core for each learner, also for the one in this process
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init(
    "local",
    num_cpus=4,  # more than there may be: nobody samples while the learners work
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)


def measure(num_learners, width):
    """The median of an update's milliseconds, divided by its gradient steps."""
    learners = num_learners or 1  # with 0, there is one in this process
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=1, num_envs_per_env_runner=16)
        .learners(num_learners=num_learners)
        .training(
            train_batch_size_per_learner=BATCH // learners,  # so the batch is the same
            minibatch_size=MINIBATCH // learners,
            num_epochs=EPOCHS,
        )
        .rl_module(model_config={"fcnet_hiddens": [width, width]})
        .debugging(seed=SEED, log_level="ERROR")
    )
    algo = config.build_algo()
    update, times = algo.learner_group.update, []

    def timed(**kwargs):
        start = time.perf_counter()
        results = update(**kwargs)
        times.append(time.perf_counter() - start)
        return results

    algo.learner_group.update = timed
    each = []
    for _ in range(ITERATIONS + 1):
        learned = algo.train()["learners"]["default_policy"]
        steps = learned["num_module_steps_trained"] / MINIBATCH  # of all learners
        each.append(1000 * times[-1] / steps)
        # PPO adds a step to each fragment of an episode, so there are some more.
        least = EPOCHS * BATCH // MINIBATCH
        if not least <= steps < 1.25 * least:
            sys.exit(
                f"With {num_learners} learners: {steps} gradient steps, not {least}."
            )
    actors = len(algo.learner_group)
    algo.stop()
    if actors != num_learners:
        sys.exit(f"There were {actors} learner actors, not {num_learners}.")
    return statistics.median(each[1:])  # the first warms up


print(f"PPO's update: {BATCH} env steps, {EPOCHS} epochs, minibatches of {MINIBATCH}")
print("Milliseconds, divided by the number of gradient steps")
print("num_learners    network of 64 x 64  network of 512 x 512")
for num_learners in (0, 1, 2):
    small, large = (measure(num_learners, width) for width in (64, 512))
    print(f"{num_learners:<14d}  {small:18.1f}  {large:20.1f}", flush=True)
    if num_learners == 1:
        halves = f"half of 1's     {small / 2:18.1f}  {large / 2:20.1f}"
print(halves)
ray.shutdown()
