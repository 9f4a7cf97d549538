"""MARWIL learns from the records of a mediocre policy and does far better than it."""

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
from ray.rllib.algorithms.marwil import MARWILConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; the recorded policy has about 35
MAX_UPDATES = 3000
GAMMA = 0.95  # how much the next step counts in the returns below

rng, env = np.random.default_rng(SEED), gym.make("CartPole-v1")


def behaviour(observation):
    """Pushes to the side that the pole leans to; 7 times in 10 at random instead."""
    return int(observation[2] > 0) if rng.random() > 0.7 else int(rng.integers(2))


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
while len(records) < 20_000:
    rows = play(behaviour, 100_000 * SEED + episodes)
    # RLlib reads each row as an episode of its own, so it cannot add up what came
    # after it. We do: "rewards" becomes all that followed, and gamma below is 0.
    for row, after in zip(rows[-2::-1], rows[:0:-1], strict=True):
        row["rewards"] += GAMMA * after["rewards"]
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
    MARWILConfig()
    # No environment: training sees the file alone, and has to be told the spaces.
    .environment(observation_space=env.observation_space, action_space=env.action_space)
    .offline_data(
        input_=[folder.name],
        dataset_num_iters_per_learner=100,  # updates in each train()
        materialize_mapped_data=True,  # default False: prepare the rows again each time
        # By default two processes prepare the rows. On two cores they wait for ever.
        map_batches_kwargs={"concurrency": 1, "max_restarts": 0},
    )
    .training(
        beta=1.0,  # the default; 0 would imitate good and bad steps alike
        gamma=0.0,  # default 0.99; the returns are in the file already
        lr=1e-3,  # default 1e-4
        train_batch_size_per_learner=1024,  # default 2000
        moving_average_sqd_adv_norm_update_rate=1e-2,  # default 1e-8: hardly moves
    )
    .rl_module(
        model_config={
            "fcnet_hiddens": [64, 64],
            "fcnet_activation": "tanh",
            "vf_share_layers": False,  # default True: the values spoil the policy
        }
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, updates, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and updates < MAX_UPDATES:
    iteration += 1
    result = algo.train()
    updates += 100
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
    sys.exit(f"MARWIL missed its target of {TARGET} within {MAX_UPDATES:,} updates.")
