"""llama.cpp's server in a process of its own, by the package xllamacpp. Clients reach it by HTTP: `llama_client.py`.

    python -m bench.serving.llama_engine MODEL THREADS CONTEXT SLOTS          context: tokens of one slot

Prints a line of JSON with its address when the model is loaded, and runs until its input ends. What is not set here is
as the server has it by default; so all slots' prompts are looked at for the longest beginning of a new one.
"""

import json
import os
import sys

__all__ = ["main"]

CONNECTIONS = 80  # threads that serve HTTP: each streams one answer, and a request must not wait for one


def main(model: str, threads: str, context: str, slots: str) -> None:
    with os.fdopen(os.dup(1), "w") as output:  # what else is printed goes to standard error
        os.dup2(2, 1)
        import xllamacpp  # type: ignore[import-not-found]  # noqa: PLC0415  (another Python has it)

        settings = xllamacpp.CommonParams()
        settings.model.path = model
        settings.n_gpu_layers = 0
        settings.n_parallel, settings.n_ctx = int(slots), int(slots) * int(context)
        settings.fit_params = False  # take these numbers as they are
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = int(threads)
        settings.cont_batching = settings.cache_prompt = True
        settings.n_threads_http = CONNECTIONS
        settings.verbosity = 1  # errors only
        server = xllamacpp.Server(settings)
        # Which build of llama.cpp it is, the package's version says; which CPU it was built for, the system's line.
        about = f"xllamacpp {xllamacpp.__version__}, {xllamacpp.get_system_info().strip().rstrip('| ')}"
        print(json.dumps({"about": about, "address": server.listening_address}), file=output, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
