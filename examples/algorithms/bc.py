"""Behaviour cloning imitates a good controller from a file of what it did."""

import logging
import os
import sys
import tempfile
import time
import warnings

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import ray
import ray.data
import torch
from ray.rllib.algorithms.bc import BCConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; the recorded controller has 500
MAX_UPDATES = 1000

rng, env = np.random.default_rng(SEED), gym.make("CartPole-v1")


def behaviour(observation):
    """A hand-written controller: push to where the pole leans, moves and drifts."""
    position, velocity, angle, angular_velocity = observation
    lean = angle + 0.3 * angular_velocity + 0.03 * position + 0.06 * velocity
    return int(lean > 0)


def greedy(observation):
    with torch.no_grad():
        out = module.forward_inference({"obs": torch.tensor(observation)[None]})
    return out["action_dist_inputs"].argmax().item()


def play(act, seed):
    """One episode, as rows of what RLlib wants to read."""
    observation, _ = env.reset(seed=seed)
    rows, done = [], False
    while not done:
        action = act(observation)
        new_observation, reward, terminated, truncated, _ = env.step(action)
        row = {"obs": observation.tolist(), "actions": action, "rewards": reward}
        row |= {"new_obs": new_observation.tolist(), "terminateds": terminated}
        rows.append(row | {"truncateds": truncated})
        observation, done = new_observation, terminated or truncated
    return rows


records, episodes = [], 0
while len(records) < 10_000:
    rows = play(behaviour, 100_000 * SEED + episodes)
    records += rows
    episodes += 1
print(f"behaviour return {len(records) / episodes:.1f} over {episodes} episodes")
rng.shuffle(records)  # RLlib reads them in order
folder = tempfile.TemporaryDirectory()
parquet.write_table(pa.Table.from_pylist(records), f"{folder.name}/steps.parquet")

torch.set_num_threads(1)  # so small a network is slower with more threads
for name in ("ray.rllib", "ray.data"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banners, no progress reports
ray.data.DataContext.get_current().enable_progress_bars = False
warnings.filterwarnings("ignore", message="`ray_remote_args`")  # of max_restarts below
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    BCConfig()
    # No environment: training sees the file alone, and has to be told the spaces.
    .environment(observation_space=env.observation_space, action_space=env.action_space)
    .offline_data(
        input_=[folder.name],
        dataset_num_iters_per_learner=50,  # updates in each train()
        # By default two processes prepare the rows. On two cores they wait for ever.
        map_batches_kwargs={"concurrency": 1, "max_restarts": 0},
    )
    .training(
        lr=1e-3,  # default 1e-4
        train_batch_size_per_learner=1024,  # default 2000
    )
    .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, updates, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and updates < MAX_UPDATES:
    iteration += 1
    result = algo.train()
    updates += 50
    [learner] = algo.learner_group.foreach_learner(lambda learner: learner)
    module = learner.get().module["default_policy"]
    greedy_return = sum(len(play(greedy, seed)) for seed in range(20)) / 20
    # Recorded steps, each time that they are trained on.
    steps = int(
        result["learners"]["__all_modules__"]["num_module_steps_trained_lifetime"]
    )
    print(
        f"iteration {iteration:3d}   env steps {steps:7,d}   "
        f"mean return {greedy_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
algo.stop()
ray.shutdown()
folder.cleanup()

print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"BC missed its target of {TARGET} within {MAX_UPDATES:,} updates.")
