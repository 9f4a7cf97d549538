"""A policy behind Ray Serve: RLlib's own connectors, a token, checks, and batches."""

import asyncio
import contextlib
import http.client
import json
import logging
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "died or was killed"  # expected below

import numpy as np
import ray
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve
from ray.rllib.connectors.env_to_module import EnvToModulePipeline
from ray.rllib.connectors.module_to_env import ModuleToEnvPipeline
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from starlette.responses import JSONResponse

# Two processes ("replicas"); a new policy's is there before one of the old ends.
DEFAULTS = bool(os.environ.get("DEFAULTS"))  # Serve's own, to see what they cost
REPLICAS, SURGE = (1, 0) if DEFAULTS else (2, 50)
LARGEST, PATIENCE = 10_000, 5  # bytes of a request, and seconds until it is here
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class Question(BaseModel):
    """What a client may ask: four finite numbers, and nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid")
    observation: Annotated[list[Number], Field(min_length=4, max_length=4)]


class GreedyPolicy:
    """What an env runner does between an observation and its greedy action."""

    def __init__(self, folder):
        folder = Path(folder).absolute() / "rllib"  # RLlib refuses a relative path
        self.module = RLModule.from_checkpoint(folder / "rl_module")
        if self.module.is_stateful():  # each request would begin with an empty memory
            raise ValueError("A policy with a memory needs its state in each request.")
        load = EnvToModulePipeline.from_checkpoint
        self.env_to_module = load(folder / "env_to_module_connector")
        load = ModuleToEnvPipeline.from_checkpoint
        self.module_to_env = load(folder / "module_to_env_connector")

    def act(self, observations):
        """Greedy actions for several observations, as the environment takes them."""
        episodes = [
            SingleAgentEpisode(
                observations=[np.array(observation, np.float32)],
                observation_space=self.env_to_module.input_observation_space,
                action_space=self.env_to_module.input_action_space,
            )
            for observation in observations
        ]
        shared = {"rl_module": self.module, "episodes": episodes, "explore": False}
        shared["shared_data"] = {}
        with torch.no_grad():
            out = self.module.forward_inference(self.env_to_module(batch={}, **shared))
        out = self.module_to_env(batch=out, **shared)
        return out.get("actions_for_env", out["actions"])


@serve.deployment(
    num_replicas=REPLICAS,
    max_surge_percent=SURGE,
    max_ongoing_requests=64,  # so many at a time in a replica, the others wait
    max_queued_requests=256,  # when so many wait, the next is refused: status 503
    health_check_period_s=1,  # default 10: see sooner that a process is gone
    max_constructor_retry_count=2,  # give up a policy that fails to load so often
)
class Acting:
    def __init__(self, token, policy):
        torch.set_num_threads(1)  # so small a network is slower with more threads
        self.expected = f"Bearer {token}".encode()
        self.policy = GreedyPolicy(policy)
        self.about = {"policy": Path(policy).name, "process": os.getpid()}

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0)  # those that wait already
    async def act(self, observations):
        return [action.tolist() for action in self.policy.act(observations)]

    async def __call__(self, request):
        def refuse(status, why):
            return JSONResponse({"error": why}, status)

        given = request.headers.get("authorization", "").encode()
        if not secrets.compare_digest(given, self.expected):
            return refuse(401, "Send the header 'Authorization: Bearer TOKEN'.")
        body = b""
        try:
            async with asyncio.timeout(PATIENCE):
                async for part in request.stream():
                    body += part
                    if len(body) > LARGEST:
                        return refuse(413, f"Send at most {LARGEST:,} bytes.")
        except TimeoutError:
            return refuse(408, f"Send the request within {PATIENCE} s.")
        try:
            observation = Question.model_validate_json(body).observation
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(name) for name in first["loc"]) or "body"
            return refuse(422, f"{where}: {first['msg']}.")
        return {"action": await self.act(observation), **self.about}


def ask(observation, timeout=120):
    """The service's answer, whole; an error if it is one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    body = json.dumps({"observation": [float(number) for number in observation]})
    connection.request("POST", "/", body, {"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {response.read().decode()}")
    return json.load(response)


def run(policy):
    """Serve this policy; where another is served, in its place."""
    serve.run(Acting.bind(token, str(policy)), route_prefix="/")


def meanwhile(what, change):
    """Four clients ask while something changes: what they and the change return."""
    answers, done = [], threading.Event()

    def client():
        while not done.is_set():
            begin, answer = time.perf_counter(), None
            with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
                answer = ask(observations[0])
            answers.append((time.perf_counter() - begin, answer))
            time.sleep(0.02)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(client)
        begin = time.perf_counter()
        try:
            result = change()
            took = time.perf_counter() - begin
            time.sleep(1)
        finally:
            done.set()
    errors = sum(answer is None for _, answer in answers)
    longest = max(seconds for seconds, _ in answers)
    print(f"{what:26s}{len(answers) - errors:8d}{errors:8d}{longest:14.1f} s")
    last = next(answer for _, answer in reversed(answers) if answer)
    return last, errors, longest / took, result


token = os.environ.get("TOKEN") or secrets.token_urlsafe(32)
if "PORT" in os.environ and not (os.environ.get("TOKEN") and os.environ.get("POLICY")):
    sys.exit("Name a folder in POLICY and a secret in TOKEN.")
for name in ("ray.rllib", "ray.serve"):
    logging.getLogger(name).setLevel(logging.ERROR)
quiet = {"log_to_driver": False, "logging_level": "error"}
ray.init("local", num_cpus=REPLICAS + 2, include_dashboard=False, **quiet)
with socket.socket() as probe:  # Serve itself would share a port that is taken
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", int(os.environ.get("PORT", 0))))
    port = probe.getsockname()[1]
serve.start(
    proxy_location="HeadOnly",
    http_options={"host": "127.0.0.1", "port": port},
    logging_config={"log_level": "ERROR", "enable_access_log": False},
)
if "PORT" in os.environ:  # until SIGTERM or Ctrl-C; SIGUSR1 looks at POLICY again
    again = queue.SimpleQueue()
    for number in signal.SIGTERM, signal.SIGINT:
        signal.signal(number, lambda *_: sys.exit())
    signal.signal(signal.SIGUSR1, lambda *_: again.put(True))
    run(Path(os.environ["POLICY"]).resolve())  # where a link points to now
    while again.get():
        try:
            run(Path(os.environ["POLICY"]).resolve())
        except RuntimeError as error:
            print(error, file=sys.stderr)

# Without a port, a look: train a policy, serve it, disturb it, and end.
folder = tempfile.TemporaryDirectory()
first, second = (Path(folder.name) / name for name in ("first", "second"))
trained = os.environ | {"POLICY": str(first)}
subprocess.check_output([sys.executable, "serving_policy.py"], env=trained)
second.symlink_to(first)  # as if it was another one
check = np.load(first / "check.npz")
observations, actions = check["observations"][:200], check["actions"][:200]

run(first)
off = np.abs([ask(seen)["action"] for seen in observations] - actions).max()
print(f"{len(actions)} actions over HTTP, at most {off:.1e} N off RLlib's")
torch.set_num_threads(1)
policy = GreedyPolicy(first)
each = timeit.timeit(lambda: policy.act(observations[:1]), number=200) / 200
print(f"the policy alone, without HTTP: {1000 * each:.1f} ms\n")


def kill():
    """Kill the process of a replica, and wait until all are there again."""
    killed, there = ask(observations[0])["process"], set()
    os.kill(killed, signal.SIGKILL)
    give_up = time.monotonic() + 120
    while len(there) < REPLICAS:
        with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
            there |= {ask(observations[0])["process"]} - {killed}
        if time.monotonic() > give_up:
            sys.exit("No process came in place of the one that was killed.")


def fail():
    """Serve a policy that is not there; the answer, or mend it if there is none."""
    with contextlib.suppress(RuntimeError):
        run(Path(folder.name) / "missing")
        sys.exit("Serve did not say that this policy cannot be loaded.")
    with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
        return ask(observations[0], timeout=10)["policy"]
    return run(second)


print("meanwhile                 answered  errors  longest wait")
newer, errors, waited, _ = meanwhile("a new policy", lambda: run(second))
after, *_ = meanwhile("a process is killed", kill)
still, more_errors, _, went_on = meanwhile("a policy that fails", fail)
ray.shutdown()
if off > 0.01:
    sys.exit("The service acts otherwise than RLlib.")
if [answer["policy"] for answer in (newer, after, still)] != ["second"] * 3:
    sys.exit("The policy that is served is not the newest that could be loaded.")
promised = (False, None) if DEFAULTS else (True, "second")
if errors or (waited < 0.5, went_on) != promised or (more_errors and not DEFAULTS):
    sys.exit("Clients waited, or got errors, otherwise than the settings promise.")
