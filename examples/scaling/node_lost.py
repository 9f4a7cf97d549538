"""A cluster that loses a node, gets a new one, and loses another that was warned."""

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

# One secret for all nodes and for this program, before Ray is imported.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # Ray's own words about dead processes

import gymnasium as gym
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 195  # mean return of 20 greedy episodes; acting at random gives about 22

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
logging.getLogger("ray.rllib.utils.actor_manager").setLevel(logging.CRITICAL)
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
nodes, born = {}, time.perf_counter()  # name: its process


def start_node(name, *options, **environment):
    """A node as on a machine of its own, with a folder and one or no CPU of its own."""
    with open(Path(folder.name) / f"{name}.log", "w") as log:
        nodes[name] = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
            + ["--node-ip-address=127.0.0.1", f"--temp-dir={folder.name}/{name}"]
            + ["--object-store-memory=100000000", "--memory=1000000000"]
            # All nodes share one machine: no ports of Ray's own choice.
            + ["--min-worker-port=0", "--max-worker-port=0"],
            env=os.environ | environment,
            stdout=log,
            stderr=log,
        )


def processes_of(pid):
    """The process and all its descendants, from Linux's table of processes."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parent = entry.read_text().rpartition(")")[2].split()[1]
            parents[int(entry.parent.name)] = int(parent)
    found = {pid}
    while more := {p for p in parents if parents[p] in found} - found:
        found |= more
    return found


def kill_node(name):
    """All processes of a node die at once, as when its power is cut."""
    node = nodes.pop(name)
    if node.poll() is None:
        for pid in processes_of(node.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_until(what, condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"Waited in vain: {what}.")
        time.sleep(0.1)


def alive_nodes():
    return sum(node["Alive"] for node in ray.nodes())


def greedy_return_of(module, first_seed, episodes=20):
    """The mean return of whole episodes that choose the likeliest action."""
    env, total = gym.make("CartPole-v1"), 0.0
    for episode in range(episodes):
        observation, _ = env.reset(seed=first_seed + episode)
        done = False
        while not done:
            with torch.no_grad():
                out = module.forward_inference({"obs": torch.tensor(observation)[None]})
            action = out["action_dist_inputs"].argmax().item()
            observation, reward, terminated, truncated, _ = env.step(action)
            total += reward
            done = terminated or truncated
    return total / episodes


def train(done):
    """Train until `done(result)`, and print a line for each iteration."""
    begin = time.perf_counter()
    while True:
        start = time.perf_counter()
        result = algo.train()
        seconds = time.perf_counter() - start
        print(
            f"iteration {algo.iteration:3d}   "
            f"env steps {int(result['num_env_steps_sampled_lifetime']):7,d}   "
            f"mean return {result['env_runners']['episode_return_mean']:6.1f}   "
            f"env runners {healthy(result)}   took {seconds:5.1f}   "
            f"seconds {time.perf_counter() - born:5.1f}"
        )
        if done(result):
            return
        if time.perf_counter() - begin > 240:
            sys.exit("This takes too long.")


def healthy(result):
    return result["fault_tolerance"]["num_healthy_workers"]


def learned(result):
    module = algo.get_module()
    return algo.iteration % 3 == 0 and greedy_return_of(module, 10**6) > 1.3 * TARGET


def head_answers():
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


try:
    port = free_port()
    head = f"127.0.0.1:{port}"
    start_node(
        "h",
        *("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=0"),
        # Where grpcio is installed, a head also listens at 10001 for Ray Client.
        *[f"--ray-client-server-port={free_port()}"] * bool(find_spec("grpc")),
    )
    wait_until("the head answers", head_answers)
    ray.init(head, log_to_driver=False, logging_level="error")
    worker = f"--address={head}", "--num-cpus=1"
    start_node("a", *worker)
    # How long a node waits between a SIGTERM and its end; by default 30 seconds.
    start_node("b", *worker, RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="12")
    wait_until("a cluster of three nodes", lambda: alive_nodes() == 3)
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=2, num_envs_per_env_runner=8)
        .training(lr=3e-3, train_batch_size_per_learner=2048, num_epochs=6)
        .debugging(seed=SEED, log_level="ERROR")
    )
    algo = config.build_algo()
    train(lambda result: algo.iteration == 2)

    print("--- node a dies without a warning")
    kill_node("a")
    train(lambda result: algo.iteration == 4)

    print("--- node c joins")
    start_node("c", *worker)
    train(lambda result: healthy(result) == 2)

    print("--- node b is warned, with SIGTERM; node d joins in the meantime")
    nodes["b"].send_signal(signal.SIGTERM)
    start_node("d", *worker)
    train(lambda result: nodes["b"].poll() is not None and healthy(result) == 2)

    print("--- two nodes, to the end")
    train(learned)
    module = algo.get_module()
    algo.stop()
finally:
    ray.shutdown()
    for name in list(nodes):
        kill_node(name)
    folder.cleanup()

greedy_return = greedy_return_of(module, 1000 * SEED)
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The agent did not learn: it should reach {TARGET}.")
