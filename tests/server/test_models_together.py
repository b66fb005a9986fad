"""Three real models, of which two fit into memory, and clients that want now this one and now that."""

import asyncio
import random
import threading
from pathlib import Path

import httpx
import pytest
from tests.support.serving import served
from tests.support.tiny_model import tiny_model

from sotol import LLM
from sotol.loading import LoadOptions, memory_of
from sotol.server import Models, create_app
from sotol.server.metrics import Metrics
from sotol.server.offering import Entry, offer

CLIENTS, EACH = 8, 12
PROMPTS = ("abc", "the sea", "hello, you?")
OPTIONS = {"threads": 1, "ctx": 64, "sequences": 8}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tiny_model(tmp_path_factory.mktemp(name), seed=seed) for seed, name in enumerate("abc")}


@pytest.fixture(scope="module")
def expected(paths: dict[str, Path]) -> dict[tuple[str, str], str]:
    """What each model makes of each prompt."""
    texts = {}
    for name, path in paths.items():
        with LLM(path, **OPTIONS) as llm:  # type: ignore[arg-type]
            for prompt in PROMPTS:
                texts[name, prompt] = llm.generate(prompt, max_tokens=6, temperature=0).text
    assert len({texts[name, "abc"] for name in paths}) == 3
    return texts


def test_what_a_model_takes_is_known_before(paths: dict[str, Path]) -> None:
    told = memory_of(paths["a"], LoadOptions.of(OPTIONS))
    with LLM(paths["a"], **OPTIONS) as llm:  # type: ignore[arg-type]
        assert llm.memory == told > paths["a"].stat().st_size


def test_three_models_where_two_fit(paths: dict[str, Path], expected: dict[tuple[str, str], str]) -> None:
    """Each answer is that of its model, nothing is left over, and memory was never more than allowed."""
    most = int(2.5 * memory_of(paths["a"], LoadOptions.of(OPTIONS)))
    threads = threading.active_count()
    entries = [Entry(name=name, path=str(path)) for name, path in paths.items()]
    metrics = Metrics()
    models = Models([offer(entry, OPTIONS) for entry in entries], memory=most, keep_alive=0.2, watch=metrics)
    wrong: list[str] = []

    def client(number: int, url: str) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=url, timeout=120) as http:
            for _ in range(EACH):
                name, prompt = chance.choice(list(paths)), chance.choice(PROMPTS)
                body = {"model": name, "prompt": prompt, "max_tokens": 6, "temperature": 0}
                if chance.random() < 0.5:
                    text = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
                else:
                    said = http.post("/api/generate", json={
                        "model": name, "prompt": prompt, "raw": True, "stream": False,
                        "options": {"num_predict": 6, "temperature": 0}, "keep_alive": chance.choice([None, 0, "1h"]),
                    })  # fmt: skip
                    text = said.json()["response"]
                if text != expected[name, prompt]:
                    wrong.append(f"{name}, {prompt}: {text!r} and not {expected[name, prompt]!r}")
                taken = sum(model["memory"] for model in http.get("/v1/models").json()["data"])
                if taken > most:
                    wrong.append(f"{taken} bytes are taken")

    with served(create_app(models)) as url:
        clients = [threading.Thread(target=client, args=(number, url)) for number in range(CLIENTS)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(120)
        told = metrics.text().decode()
    asyncio.run(models.close())
    assert wrong == []
    for name in paths:
        assert f'sotol_model_loads_total{{model="{name}",outcome="ready"}}' in told
    assert 'outcome="failed"' not in told
    assert 'reason="memory"' in told
    assert threading.active_count() <= threads
