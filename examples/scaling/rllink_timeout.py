"""A simulator by RLlink that comes late: what sample_timeout_s makes of it.

It needs rllink.py in the same folder.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time

os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # the last algo.stop() starts no new Ray

import gymnasium as gym
import numpy as np
import ray
import rllink
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.external.env_runner_server_for_external_inference import (
    EnvRunnerServerForExternalInference,
)

SEED = int(os.environ.get("SEED", 0))
LATE = 6.0  # seconds that the simulator waits, where the first call of train() waits


def build(port, sample_timeout_s):
    return (
        PPOConfig()
        .environment(
            observation_space=gym.spaces.Box(-np.inf, np.inf, (4,), np.float32),
            action_space=gym.spaces.Discrete(2),
            env_config={"port": port - 1},
        )
        .env_runners(
            env_runner_cls=EnvRunnerServerForExternalInference,
            num_env_runners=1,
            create_local_env_runner=False,
            sample_timeout_s=sample_timeout_s,
            merge_env_runner_states=False,
            broadcast_env_runner_states=False,
        )
        .training(train_batch_size_per_learner=rllink.BATCH, num_epochs=1)
        .debugging(seed=SEED, log_level="ERROR")
        .build_algo()
    )


def simulator(port, batch_left):
    """The simulator of rllink.py, which also tells that its first batch has left."""
    send = rllink.send_rllink_message

    def send_and_tell(link, message):
        send(link, message)
        if message["type"] == "EPISODES_AND_GET_STATE":
            batch_left.set()

    rllink.send_rllink_message = send_and_tell
    rllink.simulator(port)


def stop(algo):
    with contextlib.suppress(Exception):  # when the end of Ray ends it
        algo.stop()


def train(algo):
    """One call of train(): the seconds that it took, and the env steps that it had."""
    start, before = time.perf_counter(), algo.metrics.peek(COUNTER, default=0)
    algo.train()
    steps = algo.metrics.peek(COUNTER, default=0) - before
    return time.perf_counter() - start, int(steps)


COUNTER = ("env_runners", "num_env_steps_sampled_lifetime")
if __name__ == "__main__":  # the simulator's process imports this file, too
    torch.set_num_threads(1)
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
    ray.init(
        "local", include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    signal.signal(signal.SIGALRM, rllink.too_long)
    signal.alarm(300)  # sample() itself would wait for ever
    context = multiprocessing.get_context("spawn")
    for sample_timeout_s in None, 2.0:
        print(f"sample_timeout_s={sample_timeout_s}, and no simulator yet")
        algo = build(port := rllink.free_port(), sample_timeout_s)
        batch_left = context.Event()
        client = context.Process(target=simulator, args=[port, batch_left], daemon=True)
        if sample_timeout_s is None:
            threading.Timer(LATE, client.start).start()
        seconds, steps = train(algo)
        print(f"  train() took {seconds:.1f} s and had {steps:,} env steps")
        if steps != (rllink.BATCH if sample_timeout_s is None else 0):
            sys.exit("The first call did not have the outcome that the page describes.")

        if sample_timeout_s:
            client.start()
            batch_left.wait()
            print("  now the simulator starts, and its first batch leaves it")
        start = time.perf_counter()
        calls = [train(algo)[1] for _ in range(10)]
        seconds = time.perf_counter() - start
        print(f"  ten more calls took {seconds:.1f} s and had {sum(calls):,} env steps")
        if any(n != (rllink.BATCH if sample_timeout_s is None else 0) for n in calls):
            sys.exit("Later it was not as the page describes.")
        client.terminate()
        client.join()
        stopping = threading.Thread(target=stop, args=[algo], daemon=True)
        stopping.start()
        stopping.join(60 if sample_timeout_s is None else 5)
        back = not stopping.is_alive()
        print(f"  algo.stop() {'came back' if back else 'waits, too'}")
        if back != (sample_timeout_s is None):
            sys.exit("algo.stop() did not do what the page describes.")
    ray.shutdown()
