"""Behaviour cloning in TensorFlow 2, on RLlib's old API stack."""

import logging
import os
import sys
import tempfile
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # RLlib's TensorFlow code needs Keras 2

import gymnasium as gym
import ray
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.evaluation.sample_batch_builder import SampleBatchBuilder
from ray.rllib.offline.json_writer import JsonWriter

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; the recorded controller has 500
MAX_ITERATIONS = 60

env = gym.make("CartPole-v1")


def behaviour(observation):
    """A hand-written controller: push to where the pole leans, moves and drifts."""
    position, velocity, angle, angular_velocity = observation
    lean = angle + 0.3 * angular_velocity + 0.03 * position + 0.06 * velocity
    return int(lean > 0)


def record(folder):
    """Write 10,000 steps as the old API stack reads them: an episode a line of JSON."""
    writer, steps, episodes = JsonWriter(folder), 0, 0
    while steps < 10_000:
        batch, done = SampleBatchBuilder(), False
        observation, _ = env.reset(seed=100_000 * SEED + episodes)
        while not done:
            action = behaviour(observation)
            step = env.step(action)
            new_observation, reward, terminated, truncated, _ = step
            batch.add_values(
                obs=observation,
                actions=action,
                rewards=reward,
                new_obs=new_observation,
                terminateds=terminated,
                truncateds=truncated,
                eps_id=episodes,
                agent_index=0,
            )
            observation, done = new_observation, terminated or truncated
            steps += 1
        writer.write(batch.build_and_reset())
        episodes += 1
    print(f"behaviour return {steps / episodes:.1f} over {episodes} episodes")


for name in ("ray", "ray.rllib"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
folder = tempfile.TemporaryDirectory()
record(folder.name)

config = (
    BCConfig()
    # TensorFlow lives in the old API stack only.
    .api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    .framework("tf2", eager_tracing=True)  # eager_tracing: compiled, so faster
    .environment("CartPole-v1")  # for its spaces, and to evaluate
    .env_runners(num_env_runners=0)
    .offline_data(input_=folder.name)
    .training(
        lr=1e-3,  # default 1e-4
        train_batch_size=2000,  # the default: recorded steps in one read
        num_epochs=10,  # default 1: pass over these steps more than once
        minibatch_size=500,  # default: all of them in one update
        model={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"},
    )
    .evaluation(
        evaluation_interval=1_000_000,  # without one, evaluation would explore
        evaluation_duration=20,
        evaluation_config={
            "explore": False,
            "input_": "sampler",
            "num_envs_per_env_runner": 20,  # side by side
        },
    )
    .debugging(seed=SEED, log_level="ERROR")
)

algo = config.build_algo()
start, iteration, greedy_return = time.perf_counter(), 0, 0.0
while greedy_return < TARGET and iteration < MAX_ITERATIONS:
    iteration += 1
    for _ in range(2):
        result = algo.train()
    greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]
    # Recorded steps, each time that they are read; each is trained on num_epochs times.
    print(
        f"iteration {iteration:3d}   "
        f"env steps {int(result['num_env_steps_trained']):7,d}   "
        f"mean return {greedy_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
algo.stop()
ray.shutdown()
folder.cleanup()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"BC missed its target of {TARGET} in {iteration} iterations.")
