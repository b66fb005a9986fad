"""`bench/peers.py`: what its engines are asked to do, and what it makes of their times."""

import sys
from collections.abc import Sequence

import pytest
from bench import peers
from bench.engines import measure

from sotol.catalog import find_model


class Recorder:
    """An engine that only takes notes."""

    about, vocabulary = "none", 100

    def __init__(self) -> None:
        self.calls: list[object] = []

    def prompt(self, ids: Sequence[int]) -> None:
        self.calls.append(list(ids))

    def token(self, token: int, position: int) -> None:
        self.calls.append((token, position))


def test_an_answer_follows_its_prompt() -> None:
    engine = Recorder()
    seconds = measure(engine, [5, 6, 7], [8, 9])
    assert engine.calls == [[5, 6, 7], (8, 3), (9, 4)]
    assert seconds.keys() == {"prompt", "answer"}
    assert min(seconds.values()) > 0


@pytest.fixture
def result() -> peers.Result:
    """Two rounds; flash attention helps the second test only."""
    slow, fast = [80.0, 100.0], [150.0, 50.0]
    speeds = {
        "prefill": {"sotol": [300.0, 200.0], "llama.cpp": fast, "llama.cpp-flash": slow},
        "decode": {"sotol": [50.0, 60.0], "llama.cpp": slow, "llama.cpp-flash": fast},
    }
    return peers.Result("m.gguf", 2, [0.1, 0.7], {}, speeds)


def test_the_faster_form_of_the_peer_counts(result: peers.Result) -> None:
    assert result.peer("prefill") == "llama.cpp"
    assert result.peer("decode") == "llama.cpp-flash"
    assert result.ratio("prefill") == 2.0
    assert result.ratio("decode") == 0.4


def test_the_table_shows_best_and_median(result: peers.Result) -> None:
    title, _, prefill, decode = peers.show(result).split("\n")
    assert title == "m.gguf, threads: 2, rounds: 2, others used 0.10 to 0.70 cores"
    assert prefill.split() == ["prefill", "300.0", "250.0", "150.0", "100.0", "off", "2.00"]
    assert decode.split() == ["decode", "60.0", "55.0", "150.0", "100.0", "on", "0.40"]


def test_waiting_for_quiet_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "busy_cores", lambda: 1.5)
    assert peers.wait_until_quiet(0) == 1.5
    calm = iter([1.5, 0.05])
    monkeypatch.setattr(peers, "busy_cores", lambda: next(calm))
    assert peers.wait_until_quiet(60) == 0.05


def test_sotol_in_a_process_of_its_own() -> None:
    with peers.started(sys.executable, "sotol", find_model("smollm2"), 1) as engine:
        assert engine.vocabulary == 49152
        assert engine.about.startswith("sotol ")
        for _ in range(2):
            assert min(engine.run([600, 700, 800], [900]).values()) > 0


def test_an_engine_that_does_not_start() -> None:
    with (
        pytest.raises(SystemExit, match=r"another does not run under .*python.*: see above"),
        peers.started(sys.executable, "another", find_model("smollm2"), 1),
    ):
        pass
