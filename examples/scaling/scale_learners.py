"""What one and two learners do to PPO's update of one batch."""

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
    """The median seconds of an update."""
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
    for _ in range(ITERATIONS + 1):
        result = algo.train()
    algo.stop()
    sampled = result["env_runners"]["num_env_steps_sampled"]
    if not BATCH <= sampled < 1.1 * BATCH:
        sys.exit(f"With {num_learners} learners the batch had {sampled} env steps.")
    return statistics.median(times[1:])


print(
    f"Seconds of an update: {BATCH} env steps, {EPOCHS} epochs, minibatch {MINIBATCH}"
)
print("num_learners  network of 64 x 64  network of 512 x 512")
took = {}
for num_learners in (0, 1, 2):
    took[num_learners] = [measure(num_learners, width) for width in (64, 512)]
    small, large = took[num_learners]
    print(f"{num_learners:12d}  {small:18.3f}  {large:20.3f}", flush=True)
small, large = took[1]
print(f"{'ideal for 2':12s}  {small / 2:18.3f}  {large / 2:20.3f}")
ray.shutdown()
