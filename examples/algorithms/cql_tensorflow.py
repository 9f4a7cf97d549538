"""CQL learns to swing up a pendulum from records, with TensorFlow (old API stack)."""

import logging
import os
import sys
import tempfile
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # RLlib's TensorFlow code needs Keras 2
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no notes about GPUs that are not there

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.offline.json_writer import JsonWriter
from ray.rllib.policy.sample_batch import SampleBatch

SEED = int(os.environ.get("SEED", 0))
TARGET = -250  # mean return of 20 greedy episodes; the recorded policy has about -700
MAX_UPDATES = 5000
NETWORK = {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"}  # default 256 each

rng = np.random.default_rng(SEED)


def play(act, episodes, seed):
    """Whole episodes, side by side, as columns of what RLlib wants to read."""
    envs = gym.make_vec("Pendulum-v1", num_envs=episodes, vectorization_mode="sync")
    observations, _ = envs.reset(seed=seed)
    steps = []
    for _ in range(200):  # every episode is cut off here; none terminates
        actions = act(observations)
        new, rewards, terminated, _, _ = envs.step(2 * actions)  # torques from -2 to 2
        steps.append((observations, actions, rewards, new, terminated))
        observations = new
    names = ("obs", "actions", "rewards", "new_obs", "terminateds")
    columns = map(np.concatenate, zip(*steps, strict=True))
    return dict(zip(names, columns, strict=True))


def behaviour(observations):
    """A hand-written controller, which acts at random from 20 % to all of the time."""
    cosine, sine, speed = observations.T
    missing = 15 * (1 - cosine) - speed**2 / 2  # energy, to reach the top
    torque = np.where(cosine > 0.9, -8 * sine - 2 * speed, np.sign(speed) * missing)
    chance = rng.uniform(-0.95, 0.95, len(torque))
    at_random = rng.random(len(torque)) < np.linspace(0.2, 1, len(torque))
    actions = np.where(at_random, chance, np.clip(torque / 2, -0.95, 0.95))
    return actions[:, None].astype(np.float32)


def greedy(observations):
    return algo.get_policy().compute_actions(observations, explore=False)[0]


records = play(behaviour, 100, seed=1000 + SEED)
rewards = records["rewards"]
print(f"behaviour return {rewards.sum() / 100:.1f} over 100 episodes")
# Around 0, so that Q-values have a short way to go. No episode ends early: nothing else
# changes when each step brings the same amount more.
records["rewards"] = (rewards - rewards.mean()).astype(np.float32)
records["truncateds"] = np.zeros(len(rewards), bool)
order = rng.permutation(len(rewards))
folder = tempfile.TemporaryDirectory()
writer = JsonWriter(folder.name)
for rows in np.array_split(order, len(order) // 128):  # a line of JSON for each update
    writer.write(SampleBatch({name: column[rows] for name, column in records.items()}))

for name in ("ray", "ray.rllib"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    CQLConfig()
    # TensorFlow lives in the old API stack only.
    .api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    # Graph mode, which is faster than "tf2".
    .framework(
        "tf",
        local_tf_session_args={  # default 8 threads, too many for so small a network
            "intra_op_parallelism_threads": 1,
            "inter_op_parallelism_threads": 1,
        },
    )
    .environment("Pendulum-v1")  # for its spaces
    .env_runners(num_env_runners=0)
    .offline_data(input_=folder.name, actions_in_input_normalized=True)
    .training(
        optimization_config={  # default 3e-4 each
            "actor_learning_rate": 2e-3,
            "critic_learning_rate": 2e-3,
            "entropy_learning_rate": 2e-3,
        },
        bc_iters=0,  # default 20,000; in graph mode they never end
        min_q_weight=1.0,  # default 5.0: more pessimism
        num_actions=2,  # default 10: cheaper updates
        initial_alpha=0.2,  # default 1.0: value chance less from the start
        tau=0.02,  # default 0.005: target networks follow faster
        gamma=0.95,  # default 0.99: a swing-up is short
        train_batch_size=128,  # default 256: cheaper updates
        q_model_config=NETWORK,
        policy_model_config=NETWORK,
    )
    # One train() is 250 updates of 128 steps, however long they take.
    .reporting(min_train_timesteps_per_iteration=250 * 128, min_time_s_per_iteration=0)
    .debugging(seed=SEED, log_level="ERROR")
)

algo = config.build_algo()
start, steps, iteration = time.perf_counter(), 0, 0
latest, greedy_return = -9999.0, -9999.0
while greedy_return < TARGET and steps < MAX_UPDATES * 128:
    iteration += 1
    steps = int(algo.train()["num_env_steps_trained"])
    previous, latest = latest, play(greedy, 20, seed=0)["rewards"].sum() / 20
    greedy_return = min(previous, latest)  # twice in a row; once can be luck
    print(
        f"iteration {iteration:3d}   env steps {steps:7,d}   "
        f"mean return {latest:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
algo.stop()
ray.shutdown()
folder.cleanup()

print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"CQL missed its target of {TARGET} within {MAX_UPDATES:,} updates.")
