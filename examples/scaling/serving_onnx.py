"""The same policy behind a plain web service: one ONNX file, no Ray, no PyTorch."""

import asyncio
import http.client
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

LARGEST, PATIENCE = 10_000, 5  # bytes of a request, and seconds until it is here
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class Question(BaseModel):
    """What a client may ask: four finite numbers, and nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid")
    observation: Annotated[list[Number], Field(min_length=4, max_length=4)]


def make_service(folder, token):
    """An ASGI application: any ASGI server can run it."""
    expected = f"Bearer {token}".encode()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1  # so small a network is slower with more threads
    session = onnxruntime.InferenceSession(Path(folder) / "policy.onnx", settings)

    def refuse(status, why):
        return JSONResponse({"error": why}, status)

    async def act(request):
        given = request.headers.get("authorization", "").encode()
        if not secrets.compare_digest(given, expected):
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
        observations = np.array([observation], np.float32)
        [actions] = session.run(None, {"observations": observations})
        return JSONResponse({"action": actions[0].tolist()})

    return Starlette(routes=[Route("/", act, methods=["POST"])])


def ask(port, token, observation):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"observation": [float(number) for number in observation]})
    connection.request("POST", "/", body, {"Authorization": f"Bearer {token}"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


if "PORT" in os.environ:  # serve until the process is ended
    if not (os.environ.get("TOKEN") and os.environ.get("POLICY")):
        sys.exit("Name a folder in POLICY and a secret in TOKEN.")
    uvicorn.run(
        make_service(os.environ["POLICY"], os.environ["TOKEN"]),
        port=int(os.environ["PORT"]),
        limit_concurrency=256,  # with more connections, the next is refused: status 503
        log_level="warning",
    )
    sys.exit()

# Without a port, a look: train a policy, serve it from a thread, ask it, and end.
with tempfile.TemporaryDirectory() as folder:
    trained = os.environ | {"POLICY": folder}
    quiet = {"stdout": subprocess.DEVNULL, "check": True}
    subprocess.run([sys.executable, "serving_policy.py"], env=trained, **quiet)
    token = secrets.token_urlsafe(32)
    service = make_service(folder, token)
    model = (Path(folder) / "policy.onnx").read_bytes()
    check = np.load(Path(folder) / "check.npz")
    observations, actions = check["observations"], check["actions"]

server = uvicorn.Server(uvicorn.Config(service, port=0, log_level="warning"))
thread = threading.Thread(target=server.run, daemon=True)
thread.start()
while not server.started and thread.is_alive():
    time.sleep(0.01)
if not server.started:
    sys.exit("The service did not start.")
port = server.servers[0].sockets[0].getsockname()[1]
answers = [ask(port, token, seen)["action"] for seen in observations]
server.should_exit = True
thread.join()

print("observation (mm, mm/s, degrees, degrees/s)    RLlib     HTTP")
rows = list(zip(observations, actions, answers, strict=True))
for seen, action, answer in rows[::370]:
    print("".join(f"{number:10.1f}" for number in seen), end="")
    print(f"   {action[0]:6.2f} N {answer[0]:6.2f} N")
off = np.abs(np.array(answers) - actions).max()
print(f"{len(answers):,} actions, at most {off:.1e} N off")
session = onnxruntime.InferenceSession(model)
begin = time.perf_counter()
for seen in observations:
    session.run(None, {"observations": seen[None]})
each = (time.perf_counter() - begin) / len(observations) * 1000
print(f"the policy alone, without HTTP: {each:.2f} ms")
imported = {"ray", "torch"} & set(sys.modules)
print(f"imported of Ray and PyTorch: {', '.join(imported) or 'nothing'}")
if off > 0.01 or imported:
    sys.exit("The service acts otherwise than RLlib, or needs it.")
