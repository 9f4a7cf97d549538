"""Both services, side by side: the same clients, episodes and bad requests."""

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import numpy as np

SEED = int(os.environ.get("SEED", 0))
SERVICES = {"Ray Serve": "serving_ray.py", "ONNX": "serving_onnx.py"}
TOKEN = secrets.token_urlsafe(32)
CLIENTS = 8


class Client:
    """One client with a connection of its own."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.seconds, self.ends = [], []  # how long each request took; when it ended

    def send(self, body, method="POST", authorization=f"Bearer {TOKEN}"):
        """Status and answer, whatever the body."""
        headers = {"Authorization": authorization} if authorization else {}
        begin = time.perf_counter()
        self.connection.request(method, "/", body, headers)
        response = self.connection.getresponse()
        text = response.read().decode()
        self.ends.append(time.perf_counter())
        self.seconds.append(self.ends[-1] - begin)
        return response.status, text

    def act(self, observation):
        observation = [float(number) for number in observation]
        status, text = self.send(json.dumps({"observation": observation}))
        if status != 200:
            raise RuntimeError(f"status {status}: {text}")
        return json.loads(text)["action"]

    def play(self, number):
        """Return of one whole episode of the cart that serving_policy.py trains on."""
        env, episode_return, done = gym.make("CartPole-v1"), 0.0, False
        observation, _ = env.reset(seed=1000 * SEED + 500 + number)
        while not done:
            position, speed, angle, turning = observation
            in_degrees = np.degrees([angle, turning])
            [force] = self.act([2400 + 1000 * position, 1000 * speed, *in_degrees])
            env.unwrapped.force_mag = abs(force)
            observation, reward, terminated, truncated, _ = env.step(int(force > 0))
            episode_return += reward
            done = terminated or truncated
        return episode_return


def play(port, episodes):
    """So many clients play an episode each: returns, seconds of requests, rate."""
    clients = [Client(port) for _ in range(episodes)]
    begin = time.perf_counter()
    with ThreadPoolExecutor(episodes) as pool:
        returns = list(pool.map(Client.play, clients, range(episodes)))
    # Requests per second, as long as nobody has ended.
    ends = [client.ends for client in clients]
    first = min(moments[-1] for moments in ends)
    answered = sum(moment <= first for moments in ends for moment in moments)
    seconds = np.concatenate([client.seconds for client in clients])
    return returns, seconds, answered / (first - begin)


def numbers(*values):
    return '{"observation": [' + ", ".join(map(str, values)) + "]}"


# What is wrong, the status that it deserves, and the request.
GOOD = numbers(2400, 0, 0, 0)
BAD = [
    ("no token", 401, {"body": GOOD, "authorization": None}),
    ("wrong token", 401, {"body": GOOD, "authorization": "Bearer guess"}),
    ("not JSON", 422, {"body": "observation=2400"}),
    ("three numbers", 422, {"body": numbers(2400, 0, 0)}),
    ("a text", 422, {"body": numbers(2400, 0, 0, '"0"')}),
    ("NaN", 422, {"body": numbers(2400, 0, 0, "NaN")}),
    ("1e39", 422, {"body": numbers("1e39", 0, 0, 0)}),
    ("20,000 numbers", 413, {"body": numbers(*range(20_000))}),
]


def misbehave(port):
    """Send each bad request; the statuses and sentences that come back."""
    found = []
    for _, _, request in BAD:
        client = Client(port)  # some of these end the connection
        found.append(client.send(**request))
        client.connection.close()
    return found


def among_bad(port, check):
    """Four clients ask while one sends only nonsense and one stops in mid-request."""
    silent = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    silent.sendall(f"{head}Content-Length: 50\r\n\r\n{{".encode())
    wrong, right, done = [], [], threading.Event()

    def good():
        client = Client(port)
        while not done.is_set():
            i = len(right) % len(check["observations"])
            off = np.abs(client.act(check["observations"][i]) - check["actions"][i])
            (right if off.max() < 0.01 else wrong).append(i)

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(good) for _ in range(4)]
        try:
            rounds = [misbehave(port) for _ in range(5)]
            cut = silent.recv(100).split()[1].decode()  # the status, after a while
        finally:
            done.set()
            silent.close()
    for future in futures:
        future.result()  # its error, if it had one
    return rounds, len(right), len(wrong), cut


def memory(pid):
    """Megabytes, on Linux, of a process and all that it started; shared ones once."""
    processes = {pid}
    for _ in range(5):  # children, their children, ...
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
                if parent in processes:
                    processes.add(int(stat.parent.name))
    total = 0
    for pid in processes:
        with contextlib.suppress(OSError, IndexError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(rollup.split("\nPss:")[1].split()[0])
    return total / 1e3 or float("nan")


def start(program, folder):
    """Start a service; itself, its port, and the seconds until its first answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"POLICY": folder, "PORT": str(port), "TOKEN": TOKEN}
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, program], env=os.environ | settings)
    try:
        while process.poll() is None and time.perf_counter() - begin < 200:
            with contextlib.suppress(OSError):  # nobody listens yet
                if Client(port).send(GOOD)[0] == 200:
                    return process, port, time.perf_counter() - begin
            time.sleep(0.1)
    except BaseException:
        stop(process)
        raise
    stop(process)
    sys.exit(f"{program} did not start; it ended with status {process.returncode}.")


def stop(process):
    """End a service, and what it started."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


folder = tempfile.TemporaryDirectory()
subprocess.run(
    [sys.executable, "serving_policy.py"],
    env=os.environ | {"POLICY": folder.name},
    stdout=subprocess.DEVNULL,
    check=True,
)
check = dict(np.load(Path(folder.name) / "check.npz"))
expected = check["returns"][:CLIENTS].mean()

rows, refused, others = {}, {}, {}
for name, program in SERVICES.items():
    process, port, first = start(program, folder.name)
    try:
        traffic = {1: play(port, 1), CLIENTS: play(port, CLIENTS)}
        column = {"seconds to first answer": first, "memory, MB": memory(process.pid)}
        for clients, (_, seconds, rate) in traffic.items():
            who = f"{clients} client{'s' * (clients > 1)}"
            half, most = np.percentile(seconds, [50, 95]) * 1000
            column[f"{who}: half within, ms"] = half
            column[f"{who}: 95 % within, ms"] = most
            column[f"{who}: requests per s"] = rate
        column["return of 8 episodes"] = np.mean(traffic[CLIENTS][0])
        rows[name] = column
        refused[name], *others[name] = among_bad(port, check)
        if process.poll() is not None:
            sys.exit(f"{program} has ended.")
    finally:
        stop(process)
folder.cleanup()

serve, onnx = rows.values()
print(f"{'':26s}{'Ray Serve':>10s}{'ONNX':>10s}{'ratio':>8s}")
for what in serve:
    print(f"{what:26s}{serve[what]:10,.1f}{onnx[what]:10,.1f}", end="")
    print(f"{onnx[what] / serve[what]:8.2f}" if "return" not in what else "")
print(f"{'  the same, without HTTP':26s}{expected:10,.1f}{expected:10,.1f}\n")

for (what, _, _), (status, text) in zip(BAD, refused["Ray Serve"][0], strict=True):
    first, *more = textwrap.wrap(json.loads(text)["error"], 55)
    print(f"{what:15s}{status}  {first}")
    for line in more:
        print(f"{'':20s}{line}")
print()
for name, (right, wrong, cut) in others.items():
    print(f"{name}: status {cut} for the client that stopped in mid-request;")
    print(f"    meanwhile {right:,} right answers to four others, {wrong} wrong")

for name, rounds in refused.items():
    for replies in rounds:
        for (what, status, _), reply in zip(BAD, replies, strict=True):
            if reply[0] != status:
                sys.exit(f"{name} answers {reply} to {what}, and not status {status}.")
    right, wrong, cut = others[name]
    if wrong or right < 20:
        sys.exit(f"{name}: bad requests harmed other clients.")
    if cut != "408":
        sys.exit(f"{name}: status {cut} for a request that stopped, and not 408.")
    if rows[name]["return of 8 episodes"] < expected / 2:
        sys.exit(f"{name}: a far lower return over HTTP than without.")
