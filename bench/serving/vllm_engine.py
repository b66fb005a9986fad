"""vLLM's server for CPUs in a process of its own, on the model as bf16. Clients reach it by HTTP: `openai_client.py`.

    python -m bench.serving.vllm_engine MODEL THREADS CONTEXT SEQUENCES

Prints a line of JSON with its address when it answers, and runs until its input ends. It has its own limit on the
number of sequences, and 2 GB for what it keeps of them; what is not set here is as it has it by default.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from time import sleep

from bench.engines.vllm import SETTINGS, folder_of

__all__ = ["main"]

HOST = "127.0.0.1"
MODEL = "model"  # its name at the server: see `engines.py`
INTERVAL = 0.5  # seconds between two looks at whether it answers


def main(model: str, threads: str, context: str, _sequences: str) -> None:
    with os.fdopen(os.dup(1), "w") as output:  # what else is printed goes to standard error
        os.dup2(2, 1)
        folder = folder_of(Path(model))
        with socket.socket() as place:
            place.bind((HOST, 0))
            port = place.getsockname()[1]
        options = {
            "model": folder,
            "served-model-name": MODEL,
            "host": HOST,
            "port": port,
            "dtype": "bfloat16",
            "max-model-len": context,
        }
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += [f"--{name}={value}" for name, value in options.items()]
        bound = {"VLLM_CPU_OMP_THREADS_BIND": f"0-{int(threads) - 1}"}
        server = subprocess.Popen(command, env={**os.environ, **SETTINGS, **bound}, start_new_session=True)
        try:
            while not _answers(port):
                if server.poll() is not None:
                    sys.exit(f"vLLM's server ended with status {server.returncode}")
                sleep(INTERVAL)
            about = f"vllm-cpu {version('vllm-cpu')}, bf16"
            print(json.dumps({"about": about, "address": f"http://{HOST}:{port}"}), file=output, flush=True)
            sys.stdin.read()
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # with the engine's process


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
