"""Cuts the network to a node for a moment, then for longer, and mends it."""

import contextlib
import ctypes
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

# A network that only this program has, gone with it: Linux allows that to any user on
# most machines. Elsewhere all processes of the node are stopped: nothing is answered.
OWN = ["unshare", "--user", "--map-root-user", "--net"]
TRY = [*OWN, "sh", "-c", "ip link add near type veth peer name far && unshare -n true"]
if "_NETWORK_CUT" not in os.environ:
    allowed = (
        shutil.which("unshare")
        and not subprocess.run(TRY, capture_output=True).returncode
    )
    os.environ["_NETWORK_CUT"] = "own" if allowed else "stopped"
    # One secret for both nodes and for this program.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # Ray's words about dead processes
    command = [*(OWN if allowed else []), sys.executable, __file__]
    os.execvp(command[0], command)

import gymnasium as gym
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 195  # mean return of 20 greedy episodes; acting at random gives about 22
OWN_NETWORK = os.environ["_NETWORK_CUT"] == "own"
HEAD, FAR = ("10.77.0.1", "10.77.0.2") if OWN_NETWORK else ("127.0.0.1",) * 2
# What the head takes for a dead node. Its defaults need more than a minute.
HEALTH_CHECK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}
# In a network of its own, the far node waits for its end of the cable.
IN_FAR_NETWORK = (
    "read _; ip link set lo up; ip addr add 10.77.0.2/24 dev far; "
    'ip link set far up; exec "$@"'
)

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
logging.getLogger("ray.rllib.utils.actor_manager").setLevel(logging.CRITICAL)
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
started, born = {}, time.perf_counter()  # name: process


def start_node(name, address, *options, within=(), **environment):
    """A node with one CPU, and a folder of its own."""
    with open(Path(folder.name) / f"{name}.log", "w") as log:
        started[name] = subprocess.Popen(
            [*within, sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
            + [*options, f"--node-ip-address={address}", "--num-cpus=1"]
            + [f"--temp-dir={folder.name}/{name}", "--memory=1000000000"]
            + ["--object-store-memory=100000000", "--min-worker-port=0"]
            + ["--max-worker-port=0"],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )


def start_far_node(name, port):
    within = ["unshare", "--net", "sh", "-c", IN_FAR_NETWORK, "sh"] * OWN_NETWORK
    start_node(name, FAR, f"--address={HEAD}:{port}", within=within)
    if OWN_NETWORK:
        lay_cable(started[name])


def lay_cable(node):
    subprocess.run(["ip", "link", "delete", "near"], capture_output=True)
    home = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{node.pid}/ns/net") == home:
        time.sleep(0.01)
    ip("link add near type veth peer name far")
    ip(f"link set far netns {node.pid}")
    ip(f"addr add {HEAD}/24 dev near")
    ip("link set near up")
    node.stdin.write(b"\n")
    node.stdin.flush()


def ip(words):
    subprocess.run(["ip", *words.split()], check=True)


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


def send_to_far_node(number):
    """A signal to all that this program started, but for the head and its processes."""
    others = processes_of(started["head"].pid) | {os.getpid()}
    for pid in processes_of(os.getpid()) - others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def cut():
    ip("link set near down") if OWN_NETWORK else send_to_far_node(signal.SIGSTOP)


def mend():
    ip("link set near up") if OWN_NETWORK else send_to_far_node(signal.SIGCONT)


def alive_nodes():
    return sum(node["Alive"] for node in ray.nodes())


def wait_until(what, condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"Waited in vain: {what}.")
        time.sleep(0.1)


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


def learned(result):
    module = algo.get_module()
    return algo.iteration % 3 == 0 and greedy_return_of(module, 10**6) > 1.3 * TARGET


try:
    # Processes of a node that has ended become children of this program, to be ended.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    if OWN_NETWORK:
        ip("link set lo up")
        ip(f"addr add {HEAD}/32 dev lo")  # stays while the cable is pulled
    print("network:", "its own" if OWN_NETWORK else "not allowed; the node is stopped")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_node("head", HEAD, "--head", f"--port={port}", **HEALTH_CHECK)
    address = f"{HEAD}:{port}"

    def head_answers():
        with socket.socket() as probe:
            return probe.connect_ex((HEAD, port)) == 0

    wait_until("the head answers", head_answers)
    start_far_node("far", port)
    ray.init(address, log_to_driver=False, logging_level="error")
    wait_until("two nodes", lambda: alive_nodes() == 2)
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=2, num_envs_per_env_runner=8)
        .training(lr=3e-3, train_batch_size_per_learner=2048, num_epochs=6)
        .debugging(seed=SEED, log_level="ERROR")
    )
    algo = config.build_algo()
    train(lambda result: algo.iteration == 2)

    print("--- the network is cut for 2 seconds")
    cut()
    timer = threading.Timer(2.0, mend)
    timer.start()
    train(lambda result: algo.iteration == 4 and healthy(result) == 2)
    timer.join()
    if alive_nodes() != 2:
        sys.exit("After two seconds no node should be taken for dead.")

    print("--- the network is cut until the head takes the node for dead")
    cut()
    train(lambda result: alive_nodes() == 1 and healthy(result) == 1)
    print("--- the network is mended: the old node does not come back, it ends:")
    mend()
    wait_until("the old node ends", lambda: started["far"].poll() is not None)
    logs = Path(folder.name, "far", "session_latest", "logs").glob("raylet.*")
    log = "".join(path.read_text() for path in logs)
    words = re.search("Exiting because this.*? dead", log)
    if not words:
        sys.exit(f"The old node ended, but not because it was taken for dead: {log}")
    print(f"    {words[0]}")
    send_to_far_node(signal.SIGKILL)  # what is left of it
    print("--- ray start, again")
    start_far_node("again", port)
    train(lambda result: healthy(result) == 2)
    train(learned)
    module = algo.get_module()
    algo.stop()
finally:
    ray.shutdown()
    send_to_far_node(signal.SIGKILL)
    for pid in processes_of(started["head"].pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    folder.cleanup()

greedy_return = greedy_return_of(module, 1000 * SEED)
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The agent did not learn: it should reach {TARGET}.")
