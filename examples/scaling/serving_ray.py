"""A policy behind Ray Serve: RLlib's own connectors, a token, checks, and batches."""

import contextlib
import http.client
import json
import logging
import os
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
from typing import Annotated

os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # Ray's own words about dead processes

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

# Two processes, and a new policy's process is there before an old one's ends.
REPLICAS, SURGE = 2, 50
if os.environ.get("DEFAULTS"):  # Serve's own, to see what they cost
    REPLICAS, SURGE = 1, 0
LARGEST = 10_000  # bytes of a request
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class Question(BaseModel):
    """What a client may ask: four finite numbers, and nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid")
    observation: Annotated[list[Number], Field(min_length=4, max_length=4)]


class Policy:
    """All that an env runner does between an observation and an action, without it."""

    def __init__(self, folder):
        folder = Path(folder).absolute()  # RLlib refuses a relative path
        self.module = RLModule.from_checkpoint(folder / "rl_module")
        self.env_to_module = EnvToModulePipeline.from_checkpoint(
            folder / "env_to_module_connector"
        )
        self.module_to_env = ModuleToEnvPipeline.from_checkpoint(
            folder / "module_to_env_connector"
        )

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
)
class Acting:
    def __init__(self, token, policy):
        torch.set_num_threads(1)  # so small a network is slower with more threads
        self.expected = f"Bearer {token}".encode()
        self.policy = Policy(policy)
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
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return refuse(413, f"Send at most {LARGEST:,} bytes.")
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
    text = response.read().decode()
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {text}")
    return json.loads(text)


def run(policy):
    """Serve this policy; where another is served, in its place."""
    serve.run(Acting.bind(token, str(policy)), route_prefix="/")


def meanwhile(what, change):
    """Four clients ask and ask while something changes: last answer, errors, wait."""
    answers, done = [], threading.Event()

    def client():
        while not done.is_set():
            begin, answer = time.perf_counter(), None
            with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
                answer = ask(observations[0])
            answers.append((time.perf_counter() - begin, answer))
            time.sleep(0.02)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    try:
        time.sleep(1)
        change()
        time.sleep(1)
    finally:
        done.set()
    for thread in clients:
        thread.join()
    errors = sum(answer is None for _, answer in answers)
    longest = max(seconds for seconds, _ in answers)
    print(f"{what:26s}{len(answers) - errors:8d}{errors:8d}{longest:14.1f} s")
    last = next(answer for _, answer in reversed(answers) if answer)
    return last, errors, longest


token = os.environ.get("TOKEN") or secrets.token_urlsafe(32)
port = int(os.environ.get("PORT", 0))
if not port:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # a free one
        port = probe.getsockname()[1]
for name in ("ray.rllib", "ray.serve"):
    logging.getLogger(name).setLevel(logging.ERROR)
ray.init(
    "local",
    num_cpus=4,  # room for a second replica while policies are exchanged
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)
serve.start(
    proxy_location="HeadOnly",
    http_options={"host": "127.0.0.1", "port": port},
    logging_config={"log_level": "ERROR", "enable_access_log": False},
)
if "PORT" in os.environ:  # serve until SIGTERM or Ctrl-C
    end = threading.Event()
    for number in signal.SIGTERM, signal.SIGINT:
        signal.signal(number, lambda *_: end.set())
    run(Path(os.environ["POLICY"]).absolute() / "rllib")
    end.wait()
    ray.shutdown()
    sys.exit()

# Without a port, a look: train a policy, serve it, disturb it, and end.
folder = tempfile.TemporaryDirectory()
trained = os.environ | {"POLICY": folder.name}
quiet = {"stdout": subprocess.DEVNULL, "check": True}
subprocess.run([sys.executable, "serving_policy.py"], env=trained, **quiet)
first, second = (Path(folder.name) / name for name in ("rllib", "newer"))
shutil.copytree(first, second)
check = np.load(Path(folder.name) / "check.npz")
observations, actions = check["observations"][:200], check["actions"][:200]

run(first)
off = np.abs([ask(seen)["action"] for seen in observations] - actions).max()
print(f"{len(actions)} actions over HTTP, at most {off:.1e} N off RLlib's")
torch.set_num_threads(1)
policy = Policy(first)
for several in observations[:1], observations[:64]:
    begin = time.perf_counter()
    for _ in range(20):
        policy.act(several)
    each = (time.perf_counter() - begin) / 20 * 1000
    print(
        f"the policy alone, without HTTP: {len(several):2d} at once in {each:4.1f} ms"
    )
print()


def kill():
    """Kill the process of a replica, and wait until all are there again."""
    killed, there = ask(observations[0])["process"], set()
    os.kill(killed, signal.SIGKILL)
    while len(there) < REPLICAS:
        with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
            there |= {ask(observations[0])["process"]} - {killed}


def fail():
    """Serve a policy that is not there, and mend it where clients would wait."""
    with contextlib.suppress(RuntimeError):
        run(Path(folder.name) / "missing")
    try:
        ask(observations[0], timeout=3)
    except (OSError, RuntimeError, http.client.HTTPException):
        run(second)


print("meanwhile                 answered  errors  longest wait")
newer, *one = meanwhile("a new policy", lambda: run(second))
after, *_ = meanwhile("a process is killed", kill)
still, *other = meanwhile("a policy that fails", fail)
ray.shutdown()
if off > 0.01:
    sys.exit("The service acts otherwise than RLlib.")
if [answer["policy"] for answer in (newer, after, still)] != ["newer"] * 3:
    sys.exit("The policy that is served is not the newest that could be loaded.")
if one[0] or other[0]:
    sys.exit("Clients got errors while the policy was exchanged.")
