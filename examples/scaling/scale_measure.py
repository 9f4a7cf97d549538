"""Where the seconds of a PPO iteration go, by size; and a model that foretells them."""

import contextlib
import logging
import math
import os
import pickle
import statistics
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig, ppo
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from scipy.optimize import nnls

os.environ.update({"RAY_worker_niceness": "0"})  # else other programs come first
SEED = int(os.environ.get("SEED", 0))
CORES = len(os.sched_getaffinity(0))
LENGTH, MINIBATCH = 200, 128  # env steps of an episode, and of a minibatch
ITERATIONS, BEST = 5, 3  # for each row: so many are timed, the shortest ones count


class Simulator(gym.Env):
    """Waits in each step, as for a simulator that runs elsewhere: no CPU is used."""

    observation_space = gym.spaces.Box(-1, 1, (8,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config):
        self.wait = config["wait"]
        self.start = np.random.randint(LENGTH)  # else all episodes end at once

    def reset(self, *, seed=None, options=None):
        self.steps, self.start = self.start, 0
        return np.zeros(8, np.float32), {}

    def step(self, action):
        if self.wait:
            time.sleep(self.wait)
        self.steps += 1
        return np.zeros(8, np.float32), 1.0, False, self.steps == LENGTH, {}


class TimedRunner(SingleAgentEnvRunner):
    """RLlib's env runner. It also reports its seconds and its CPU seconds."""

    def sample(self, **kwargs):
        start, cpu = time.perf_counter(), time.process_time()
        episodes = super().sample(**kwargs)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        self.metrics.log_value("slowest", seconds, reduce="max")
        self.metrics.log_value("cpu", cpu, reduce="sum")
        return episodes


def stopwatch(owner, name, part):
    """Time the calls of a function: RLlib's own timers are moving averages."""
    function = getattr(owner, name)

    def timed(*args, **kwargs):
        start = time.perf_counter()
        returned[part] = function(*args, **kwargs)
        spent[part] = time.perf_counter() - start
        return returned[part]

    setattr(owner, name, timed)


def change(runners, envs, wait, batch, epochs, **settings):
    """Give the running algorithm another size. New env runners join the old ones."""
    config = usual.copy().environment(env_config={"wait": wait})
    config.training(train_batch_size_per_learner=batch, num_epochs=epochs)
    config.env_runners(
        num_env_runners=runners, num_envs_per_env_runner=envs, **settings
    )

    def take(runner):
        runner.config = config
        runner.make_env()

    group = algo.env_runner_group
    more = runners - group.num_remote_workers()
    assert more >= 0, "It can add env runners, and take none away."
    group.add_workers(more, validate=True)
    algo.config = config
    group.foreach_env_runner(take, local_env_runner=False)


def cpu_of_others():
    """The CPU seconds that other programs than this one have used on its cores."""
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    ticks = sum(sum(map(int, row[1:4] + row[6:9])) for row in rows if row[0] in cores)
    table, ours = {}, {os.getpid()}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has ended
            fields = file.read_text().rpartition(")")[2].split()
            table[int(file.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    while more := {pid for pid, (parent, _) in table.items() if parent in ours} - ours:
        ours |= more  # Ray's processes are children of this one, and theirs
    return (ticks - sum(table[pid][1] for pid in ours)) / os.sysconf("SC_CLK_TCK")


def measure(*size, **settings):
    """The median of each part, over the iterations that were disturbed least."""
    change(*size, **settings)
    algo.train()  # warms up
    rows, began, others = [], time.perf_counter(), cpu_of_others()
    for _ in range(ITERATIONS):
        start = time.perf_counter()
        runners = algo.train()["env_runners"]
        row = spent | {"iteration": time.perf_counter() - start, "cpu": runners["cpu"]}
        row["collect"] = spent["sample"] - runners["slowest"]
        row["rest"] = row["iteration"] - sum(spent.values())
        rows.append(row)
    others = (cpu_of_others() - others) / (time.perf_counter() - began)
    best = sorted(rows, key=lambda row: row["iteration"])[:BEST]
    medians = {part: statistics.median(row[part] for row in best) for part in best[0]}
    size = len(pickle.dumps(returned["sample"][0]))
    return medians | {"bytes": size, "others": others}  # in cores


def counts(runners, envs, wait, batch, epochs):
    """How often each thing happens in one iteration."""
    fragments = runners * envs + batch / LENGTH
    return {
        "vector_step": batch / envs,  # all runners together
        "env_step": batch,
        "wake": batch * (wait > 0),
        "once": 1,
        "runner": runners,
        "fragment": fragments,
        # PPO adds a step to each fragment. Minibatches go on from epoch to epoch.
        "gradient_step": math.ceil(epochs * (batch + fragments) / MINIBATCH),
    }


# The model: each part is a sum of a few things, as often as counted above.
TERMS = {
    "cpu": ("vector_step", "env_step", "wake"),
    "collect": ("once", "runner", "fragment", "env_step"),
    "learn": ("once", "fragment", "env_step", "gradient_step"),
    "weights": ("once", "runner"),
    "rest": ("once", "runner", "fragment"),
    "bytes": ("fragment", "env_step"),  # of the episodes, not seconds
}


def fit(part):
    """The seconds of each term, none negative, so that relative errors are least."""
    seconds = np.array([measured[size][part] for size in FITTED])
    happens = [[counts(*size)[term] for term in TERMS[part]] for size in FITTED]
    return nnls(np.array(happens) / seconds[:, None], np.ones(len(seconds)))[0]


def predict(size):
    """The seconds of each part: what happens, times what it takes."""
    runners, envs, wait, batch, epochs = size
    n = counts(*size)
    parts = {p: sum(model[p, t] * n[t] for t in TERMS[p]) for p in TERMS}
    del parts["bytes"]
    # A runner's CPU work and its waits are in turns. All runners share the cores.
    alone = parts.pop("cpu") / runners
    parts["sample"] = max(alone + wait * batch / runners, alone * runners / CORES)
    parts["sample"] += parts.pop("collect")
    return parts | {"iteration": sum(parts.values())}


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
ray.init("local", num_cpus=16, **quiet)  # env runners that wait need no core each
usual = (
    PPOConfig()
    .environment(Simulator, env_config={"wait": 0})
    .env_runners(num_env_runners=1, env_runner_cls=TimedRunner)
    .training(minibatch_size=MINIBATCH)
    .rl_module(model_config={"fcnet_hiddens": [64, 64]})
    .debugging(seed=SEED)
)
algo = usual.copy().build_algo()
spent, returned = {}, {}
stopwatch(ppo, "synchronous_parallel_sample", "sample")
stopwatch(algo.learner_group, "update", "learn")
stopwatch(algo.env_runner_group, "sync_weights", "weights")

# After the env runners: envs in each, seconds that a step waits, batch, epochs.
KINDS = [
    (1, 0, 256, 4),
    (1, 0.004, 128, 4),
    (4, 0.002, 256, 2),
    (8, 0, 512, 6),
    (8, 0, 2048, 1),
]
FITTED = [(runners, *kind) for runners in (1, 2, 4, 8) for kind in KINDS]
HELD_OUT = [(3, 2, 0, 768, 3), (3, 8, 0.001, 960, 5), (6, 2, 0.003, 1152, 2)]
HELD_OUT.append((12, 4, 0.004, 960, 4))  # more env runners than were fitted
*sizes, beyond = sorted(FITTED + HELD_OUT)
measured = {size: measure(*size) for size in sizes}
size = (8, 4, 0.004, 512, 2)
in_turn = measure(*size)
together = measure(*size, gym_env_vectorize_mode="async")
apart = {"merge_env_runner_states": False, "broadcast_env_runner_states": False}
unmerged = measure(*size, **apart)
measured[beyond] = measure(*beyond)
state = algo.learner_group.get_state("learner/rl_module", inference_only=True)
algo.stop()
ray.shutdown()

takes = {part: fit(part) for part in TERMS}
model = {(p, term): takes[p][n] for p in TERMS for n, term in enumerate(TERMS[p])}
print(f"Seconds of a PPO iteration on {CORES} cores; * held out: not used for the fit")
print("runners envs ms batch epochs sample  learn weights   rest     all  model   off")
off = {}
for size, row in measured.items():
    runners, envs, wait, batch, epochs = size
    predicted = predict(size)["iteration"]
    off[size] = predicted / row["iteration"] - 1
    print(
        f"{runners:7d} {envs:4d} {1000 * wait:2.0f} {batch:5d} {epochs:6d}"
        f" {row['sample']:6.3f} {row['learn']:6.3f} {row['weights']:7.3f}"
        f" {row['rest']:6.3f} {row['iteration']:7.3f} {predicted:6.3f}"
        f" {off[size]:+5.0%}{'*' if size in HELD_OUT else ''}"
    )
print("8 runners, each with 4 envs that wait 4 ms; 512 env steps")
print(f"  sampling, the 4 envs in turn (sync)    {in_turn['sample']:6.3f}")
print(f"  sampling, all at the same time (async) {together['sample']:6.3f}")
print(f"  an iteration, with merging states      {in_turn['iteration']:6.3f}")
print(f"  an iteration, without                  {unmerged['iteration']:6.3f}")
print("What each thing takes, fitted: microseconds, and bytes of the episodes")
for (part, term), value in model.items():
    print(f"  {part:7s} {term:13s} {value * (1 if part == 'bytes' else 1e6):8.1f}")
print(f"  bytes   weights       {len(pickle.dumps(state)):8.1f}")
worst = math.exp(max(abs(math.log(1 + off[size])) for size in HELD_OUT))
print(f"held out: predicted and measured differ by a factor of at most {worst:.2f}")
others = statistics.median(row["others"] for row in measured.values())
others = max(others, *(measured[size]["others"] for size in HELD_OUT))
busy = others > 0.5
if busy:
    print(f"Other programs took {others:.1f} cores: no good time to judge a model.")
if not busy and together["sample"] > in_turn["sample"]:
    sys.exit("Copies that wait at the same time took longer than in turn.")
if worst > (3 if busy else 1.5):  # with slack: machines are disturbed
    sys.exit("The model does not foretell the seconds of what it was not fitted to.")
