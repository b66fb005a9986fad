#!/bin/sh
# Clients of other projects, for `make clients`, in a virtual environment in the folder $1.
set -eu
folder=$1
[ -x "$folder/venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --disable-pip-version-check --quiet install --upgrade \
    'openai>=3,<4' 'anthropic>=2,<3' 'ollama>=0.6,<1' 'litellm>=1.100,<2' 'langchain-openai>=1.7,<2' 'llm>=0.36,<1' \
    'instructor>=1.17,<2' 'pydantic-ai-slim[openai]>=2.38,<3' 'openai-agents>=0.24,<1' 'schemathesis>=4.32,<5'
