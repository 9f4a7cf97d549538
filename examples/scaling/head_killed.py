"""Kills the head of a cluster in mid-training: the training idles, then it dies."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from importlib.util import find_spec
from pathlib import Path

# One secret for the head and for all that connects to it.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

# The training is a program of its own, because it will not survive.
TRAIN = """
import logging, pathlib, sys
import ray, torch
from ray.rllib.algorithms.ppo import PPOConfig

torch.set_num_threads(1)
logging.getLogger("ray.rllib").setLevel(logging.ERROR)
address, folder, seed = sys.argv[1:]
ray.init(address, log_to_driver=False, logging_level="error")
config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=1, num_envs_per_env_runner=8)
    .training(lr=3e-3, train_batch_size_per_learner=2048, num_epochs=6)
    .debugging(seed=int(seed))
)
algo = config.build_algo()
checkpoints = sorted(pathlib.Path(folder).glob("checkpoint_*"))
if checkpoints:
    algo.restore_from_path(checkpoints[-1])
    print(f"   goes on from {checkpoints[-1].name}", flush=True)
steps = 0
while True:
    before, steps = steps, int(algo.train()["num_env_steps_sampled_lifetime"])
    done = "nothing new"
    if steps > before:  # without this line, the newest checkpoint would be an idle one
        algo.save_to_path(pathlib.Path(folder) / f"checkpoint_{algo.iteration:06d}")
        done = "saved"
    print(f"   iteration {algo.iteration}: {steps:,} env steps, {done}", flush=True)
"""

GIVES_UP = 20  # seconds that the training looks for its head; Ray's default is 60
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
ERRORS = Path(folder.name) / "errors"
running = []


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_head(name):
    """A head with two CPUs and a folder of its own; returns its address."""
    port = free_port()
    # Where grpcio is installed, a head also listens at 10001 for Ray Client.
    client = [f"--ray-client-server-port={free_port()}"] * bool(find_spec("grpc"))
    with open(Path(folder.name) / f"{name}.log", "w") as log:
        head = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
            + [f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
            + [f"--temp-dir={folder.name}/{name}", "--include-dashboard=false"]
            + ["--object-store-memory=100000000", *client],
            stdout=log,
            stderr=log,
        )
    running.append(head)
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return f"127.0.0.1:{port}"
        if time.monotonic() > deadline:
            sys.exit("The head does not start.")
        time.sleep(0.2)


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


def kill(process):
    """The process and all that it started die at once."""
    if process.poll() is None:
        for pid in processes_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def start_training(address):
    """Start the training, and print what it prints until it has saved three times."""
    seed = os.environ.get("SEED", "0")
    with open(ERRORS, "w") as errors:
        training = subprocess.Popen(
            [sys.executable, "-c", TRAIN, address, folder.name, seed],
            env=os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": str(GIVES_UP)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    running.append(training)
    saved = 0
    for line in training.stdout:
        print(line, end="", flush=True)
        saved += line.endswith(", saved\n")
        if saved == 3:
            return training
    sys.exit("The training ended too early.")


try:
    print("a head, and a training on it")
    training = start_training(start_head("h1"))
    print("all processes of the head are killed")
    kill(running[0])
    start = time.monotonic()
    try:
        training.wait(timeout=200)
    except subprocess.TimeoutExpired:
        sys.exit("The training neither ended nor went on.")
    seconds = time.monotonic() - start
    rest = training.stdout.read()
    lines = rest.splitlines()
    idle = rest.count("nothing new")
    for line in lines:
        if "nothing new" not in line:
            print(line)
    print(f"   {idle} iterations without an error and without an env step")
    print(f"   after {seconds:.1f} s the process ended, status {training.returncode}:")
    last_words = ERRORS.read_text().splitlines()[-1].partition(": ")[2]
    print(textwrap.indent(textwrap.fill(last_words.split(" If it ")[0], 76), "   "))
    print("a new head, and the same program once more")
    start_training(start_head("h2"))
finally:
    for process in running:
        kill(process)
    folder.cleanup()
if "Failed to connect to GCS" not in last_words:
    sys.exit("The training should have ended because its head is gone.")
