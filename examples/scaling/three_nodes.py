"""PPO on three nodes: who sits where, who waits for what, a node dies, a node joins."""

import functools
import json
import logging
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

# One secret for all nodes and this program. Ray reads it when it is imported.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
os.environ.update(RAY_USAGE_STATS_ENABLED="0", PYTHONUNBUFFERED="1")

import ray
import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig

SEED = int(os.environ.get("SEED", 0))
LIMIT = 120  # seconds that one step may take on a very busy machine

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
# Ray prints long notes about a dead node to standard output. They go with the errors.
say = functools.partial(print, file=sys.stdout, flush=True)
sys.stdout = sys.stderr

folder = Path(tempfile.mkdtemp(prefix="r"))  # short: a socket's path has 107 bytes
os.environ["RAY_TMPDIR"] = str(folder)  # for what Ray would leave in /tmp
with socket.socket() as one, socket.socket() as other:
    one.bind(("", 0))
    other.bind(("", 0))
    port, client_port = one.getsockname()[1], other.getsockname()[1]
ADDRESS = f"127.0.0.2:{port}"

# Each node of the cluster by its name: the process `ray start --block` that holds it.
nodes, seconds, start = {}, {}, time.perf_counter()


def lap(what):
    """Note the seconds since the last lap."""
    global start
    seconds[what] = time.perf_counter() - start
    start = time.perf_counter()


def wait_until(happened, what):
    """Ask again and again; what it says when it says something."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        if answer := happened():
            return answer
        time.sleep(0.2)
    sys.exit(f"This did not happen within {LIMIT} s: {what}.")


def start_node(name, *options):
    """Start a node with the command that you would type on a machine of its own."""
    number = len(nodes) + 2
    log = folder / f"{name}.log"
    command = [
        *("ray", "start", "--block", f"--node-name={name}", *options),
        # On a machine of its own a node needs none of the following.
        *(f"--node-ip-address=127.0.0.{number}", f"--temp-dir={folder}/{number}"),
        *("--object-store-memory=200000000", "--memory=1000000000"),
        *("--min-worker-port=0", "--max-worker-port=0"),
    ]
    with log.open("w") as file:
        nodes[name] = subprocess.Popen(command, stdout=file, stderr=file)

    def is_up():
        if nodes[name].poll() is not None:
            sys.exit(f"Node {name} ended: {log.read_text()[-500:]}")
        return "Ray runtime started" in log.read_text()

    wait_until(is_up, f"node {name} starts")


def worker(name, **resources):
    """Start a node that joins the cluster, with one CPU and resources of your own."""
    start_node(
        name,
        f"--address={ADDRESS}",
        "--num-cpus=1",
        f"--resources={json.dumps(resources)}",
    )


def pending():
    """What waits for resources, in the words of `ray status`."""
    command = ["ray", "status", f"--address={ADDRESS}"]
    text = subprocess.run(command, capture_output=True, text=True).stdout
    return re.findall(r"^ (.*pending (?:tasks|placement).*)$", text, re.MULTILINE)


def where(_=None):
    """The name of the node on which this is called."""
    names = {node["NodeID"]: node["NodeName"] for node in ray.nodes()}
    return names[ray.get_runtime_context().get_node_id()]


def alive_nodes():
    """The names of the nodes that the head takes for alive."""
    return [node["NodeName"] for node in ray.nodes() if node["Alive"]]


def runners_sit():
    """Each env runner that answers, and its node."""
    found = algo.env_runner_group.foreach_env_runner(
        lambda runner: (runner.worker_index, where()), local_env_runner=False
    )
    return dict(sorted(found))


try:
    # 1. Three nodes: a head that lends no CPU, a learner's node, one simulator.
    start_node(
        "head",
        *("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"),
        # Where grpcio is installed, a head also listens at 10001, for Ray Client.
        *[f"--ray-client-server-port={client_port}"] * bool(find_spec("grpc")),
    )
    lap("the head starts")
    worker("trainer", learner=1)
    lap("a node starts")
    worker("sim-a", simulator=1)
    start = time.perf_counter()
    ray.init(ADDRESS, log_to_driver=False, logging_level="critical")
    lap("this program connects")

    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(
            num_env_runners=2,
            # A resource is a word of your own: the env runners go where there is one.
            custom_resources_per_env_runner={"simulator": 1},
        )
        .learners(num_learners=1, custom_resources_per_learner={"learner": 1})
        .training(train_batch_size_per_learner=1000, minibatch_size=250, num_epochs=4)
        .debugging(seed=SEED)
    )
    say("What the actors ask for (bundles), as Tune would reserve it for a trial:")
    request = PPO.default_resource_request(config)
    parts = ["main program", "env runner 1", "env runner 2", "learner"]
    for part, bundle in zip(parts, request.bundles, strict=True):
        say(f"  {part:14s}", {name: n for name, n in bundle.items() if n})

    # 2. Two env runners, and one simulator: build_algo() waits and says nothing. So
    # another thread looks at `ray status`, and then starts a fourth node.
    reserved = request.to_placement_group()  # as Tune would: all at once, or nothing

    def look_and_help():
        global start
        try:
            return wait_until(lambda: len(found := pending()) == 2 and found, "PENDING")
        finally:
            start = time.perf_counter()
            try:
                worker("sim-b", simulator=1)
            except BaseException:
                nodes["head"].kill()  # or build_algo() would wait for ever
                raise

    with ThreadPoolExecutor(1) as pool:
        helper = pool.submit(look_and_help)
        algo = config.build_algo()
        lap("the fourth node starts, build_algo() ends")
    say("\nWhile build_algo() waits, `ray status` says under Pending Demands:")
    for words in helper.result():
        say(textwrap.fill(words, 76, initial_indent="  ", subsequent_indent="    "))
    ray.util.remove_placement_group(reserved)

    say("\nWith a fourth node it goes on. Who sits where:")
    seats = {"main program": where()}
    [seats["learner"]] = (
        answer.get() for answer in algo.learner_group.foreach_learner(where)
    )
    seats |= {f"env runner {index}": node for index, node in runners_sit().items()}
    for part, node in seats.items():
        say(f"  {part:14s} {node}")
    assert seats["main program"] == "head" and seats["learner"] == "trainer"
    assert {seats["env runner 1"], seats["env runner 2"]} == {"sim-a", "sim-b"}

    algo.train()  # the first one is slower
    start = time.perf_counter()
    algo.train()
    lap("one iteration of 1,000 env steps")
    # The learner sits on another node; its state ends up in the folder named here.
    algo.save_to_path(folder / "checkpoint")
    lap("a checkpoint")
    assert (folder / "checkpoint/learner_group/learner/state.pkl").is_file()

    # 3. A node dies: its process, by its number, and all that it has started.
    say("\nNode sim-a is killed in mid-training:")
    nodes["sim-a"].kill()
    nodes["sim-a"].wait()
    start = time.perf_counter()
    algo.train()
    lap("the iteration in which a node dies")
    wait_until(lambda: len(alive_nodes()) == 3, "the head notices it")
    say("  train() returns, and goes on with", runners_sit())
    assert list(runners_sit().values()) == ["sim-b"]
    words = wait_until(lambda: algo.train() and pending(), "its env runner is PENDING")
    say("  its env runner waits:", *words)

    # 4. A new node joins while the training runs. Nobody has to tell RLlib.
    worker("sim-c", simulator=1)
    start = time.perf_counter()
    wait_until(
        lambda: algo.train() and len(runners_sit()) == 2, "two env runners again"
    )
    lap("a new node is up, its env runner works")
    say("\nNode sim-c joins in mid-training:\n  train() goes on with", runners_sit())
    assert set(runners_sit().values()) == {"sim-b", "sim-c"}
    algo.stop()
    ray.shutdown()
finally:
    # Each node by its own process. `ray stop` would end all of this machine's.
    for process in reversed(nodes.values()):
        process.terminate()
    for process in nodes.values():
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)

say("\nWhat it cost:")
for what, took in seconds.items():
    say(f"  {what:45s} {took:6.1f} s")
