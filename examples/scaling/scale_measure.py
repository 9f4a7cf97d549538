"""Where the seconds of a PPO iteration go, by size; and a model that foretells them."""

import logging
import os
import pickle
import statistics
import sys
import time

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
WITHIN = 0.25  # what was predicted may be off by so much


class Simulator(gym.Env):
    """Waits in each step, as for a simulator that runs elsewhere: no CPU is used."""

    observation_space = gym.spaces.Box(-1, 1, (8,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config):
        self.wait = config["wait"]

    def reset(self, *, seed=None, options=None):
        self.steps = 0
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
    if runners > group.num_remote_workers():
        group.add_workers(runners - group.num_remote_workers(), validate=True)
    algo.config = config
    group.foreach_env_runner(take, local_env_runner=False)


def cpu_of_all():
    """The CPU seconds that all programs have used on the cores of this one."""
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    with open("/proc/stat") as file:
        rows = [line.split() for line in file if line.split()[0] in mine]
    busy = sum(int(ticks) for row in rows for ticks in row[1:4] + row[6:9])
    return busy / os.sysconf("SC_CLK_TCK")


def measure(*size, **settings):
    """The median of each part, over the iterations that were disturbed least."""
    change(*size, **settings)
    algo.train()  # warms up
    rows = []
    for _ in range(ITERATIONS):
        start, cpu, everything = time.perf_counter(), time.process_time(), cpu_of_all()
        runners = algo.train()["env_runners"]
        seconds = time.perf_counter() - start
        ours = time.process_time() - cpu + runners["cpu"]
        rows.append(
            {
                **spent,
                "iteration": seconds,
                "cpu": runners["cpu"],
                "collect": spent["sample"] - runners["slowest"],
                "rest": seconds - sum(spent.values()),
                "others": (cpu_of_all() - everything - ours) / seconds,  # cores taken
            }
        )
    best = sorted(rows, key=lambda row: row["iteration"])[:BEST]
    medians = {part: statistics.median(row[part] for row in best) for part in best[0]}
    return medians | {"bytes": len(pickle.dumps(returned["sample"][0]))}


def counts(runners, envs, wait, batch, epochs):
    """How often each thing happens in one iteration."""
    return {
        "vector_step": batch / envs,  # all runners together
        "env_step": batch,
        "wake": batch * (wait > 0),
        "once": 1,
        "runner": runners,
        "fragment": runners * envs + batch / LENGTH,
        "gradient_step": epochs * -(-batch // MINIBATCH),
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
    parts = {
        part: sum(model[part, term] * n[term] for term in terms)
        for part, terms in TERMS.items()
        if part != "bytes"
    }
    # A runner's CPU work and its waits are in turns. All runners share the cores.
    alone = parts.pop("cpu") / runners
    parts["sample"] = max(alone + wait * batch / runners, alone * runners / CORES)
    parts["sample"] += parts.pop("collect")
    return parts | {"iteration": sum(parts.values())}


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init(
    "local",
    num_cpus=16,  # more than there are: env runners that wait need no core each
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)
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

# Env runners, envs in each, seconds that a step waits, batch, epochs.
FITTED = [
    (runners, *others)
    for runners in (1, 2, 4, 8)
    for others in [
        (1, 0, 256, 4),
        (1, 0.004, 128, 4),
        (4, 0.002, 256, 2),
        (8, 0, 512, 6),
        (8, 0, 2048, 1),
    ]
]
HELD_OUT = [(3, 2, 0, 768, 3), (3, 8, 0.001, 960, 5), (6, 2, 0.003, 1152, 2)]
measured = {size: measure(*size) for size in sorted(FITTED + HELD_OUT)}
size = (8, 4, 0.004, 512, 2)
in_turn = measure(*size)
together = measure(*size, gym_env_vectorize_mode="async")
apart = {"merge_env_runner_states": False, "broadcast_env_runner_states": False}
unmerged = measure(*size, **apart)
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
print(f"  rest, with merging states              {in_turn['rest']:6.3f}")
print(f"  rest, without                          {unmerged['rest']:6.3f}")
print("What each thing takes, fitted: microseconds, and bytes of the episodes")
for (part, term), value in model.items():
    print(f"  {part:7s} {term:13s} {value * (1 if part == 'bytes' else 1e6):8.1f}")
print(f"  bytes   weights       {len(pickle.dumps(state)):8.1f}")
worst = max(abs(off[size]) for size in HELD_OUT)
print(f"held out: the prediction is off by at most {worst:.0%}")
others = statistics.median(row["others"] for row in measured.values())
others = max(others, *(measured[size]["others"] for size in HELD_OUT))
busy = others > 0.5  # some is our own: Ray's daemons, and env runners between samples
if busy:
    print(f"Other programs took {others:.1f} cores: no good time to judge a model.")
low, high = (0.1, 10) if busy else (1 - WITHIN, 1 + WITHIN)
if not all(low <= 1 + off[size] <= high for size in HELD_OUT):
    sys.exit("The model does not foretell the seconds of what it was not fitted to.")
