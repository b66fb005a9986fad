"""`bench.peers`: what engines are asked, what becomes of their times, and what is said where they fail.

The engines are one fake in place of their Pythons, whose times are known.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from bench import machine, peers, table, tokenizing
from bench.child import Child, EngineError, seconds_to_output
from bench.engines import ENGINES
from bench.engines.__main__ import answer, peak_memory
from bench.engines.plain_read import token_bytes
from bench.engines.protocol import Setup
from bench.engines.stepping import Stepping
from bench.machine import Patience
from bench.measure import Job, Result, measure, slower, start_prompt
from bench.rows import GROUPS, MEMORY, ROWS, START, TOKENIZE, Row
from tests.support.tiny_model import tiny_model

from sotol import LLM
from sotol.catalog import find_model
from sotol.formats import read_gguf
from sotol.tokenizers import Tokenizer

FAKE = f"""#!{sys.executable}
import json, sys
arguments = sys.argv[1:]
if "bench.tokenizing" in arguments:
    print(json.dumps({{"times": {{"sotol": [0.5, 0.4], "tokenizers": [0.8, 0.9]}}, "same": True}}))
    sys.exit()
if arguments[0] == "-c" or "first" in arguments:
    print("17")
    sys.exit()
name = arguments[2]
if name == "OpenVINO bf16":
    sys.exit("no bf16 here")
print(json.dumps({{"about": name + " 1.0"}}), flush=True)
seconds = {{"sotol": 1.0, "llama.cpp": 4.0, "llama.cpp flash": 2.0, "plain read": 0.5}}[name]
for line in sys.stdin:
    command = json.loads(line)
    if name == "llama.cpp flash" and len(command.get("prompts", [])) == 16:
        sys.exit("flash attention fell over")
    found = {{"peak": 50_000_000, "panels": 20_000_000}} if "memory" in command else {{"seconds": seconds}}
    print(json.dumps(found), flush=True)
"""


@pytest.fixture
def fake(tmp_path: Path) -> str:
    path = tmp_path / "python"
    path.write_text(FAKE)
    path.chmod(0o755)
    return str(path)


class Recorder:
    """A stepper that only takes notes."""

    about = "none"

    def __init__(self) -> None:
        self.calls: list[object] = []

    def clear(self) -> None:
        self.calls.append("clear")

    def prompt(self, ids: Sequence[int], sequence: int) -> None:
        self.calls.append((list(ids), sequence))

    def step(self, tokens: Sequence[int], position: int) -> None:
        self.calls.append((*tokens, "at", position))

    def rewind(self, position: int) -> None:
        self.calls.append(("rewind", position))

    def likeliest(self) -> int:
        return 42

    def memory(self) -> Mapping[str, int]:
        return {"panels": 5}


# ---- in the engine's process


def test_a_prompt_runs_into_an_empty_cache() -> None:
    recorder = Recorder()
    assert answer(Stepping(recorder), {"prefill": [5, 6]})["seconds"] > 0
    assert recorder.calls == ["clear", ([5, 6], 0)]


def test_answers_follow_prompts_that_stay() -> None:
    recorder = Recorder()
    engine = Stepping(recorder)
    prompts, answers = [[5, 6, 7], [1, 2, 3]], [[8, 9], [10, 11]]
    steps = [(8, 9, "at", 3), ("rewind", 3), (8, 9, "at", 3), (10, 11, "at", 4), ("rewind", 3)]
    engine.decode(prompts, answers)
    assert recorder.calls == ["clear", ([5, 6, 7], 0), ([1, 2, 3], 1), *steps]
    recorder.calls.clear()
    assert answer(engine, {"prompts": prompts, "answers": answers})["seconds"] > 0
    assert recorder.calls == steps
    engine.prefill([5])
    recorder.calls.clear()
    engine.decode(prompts, answers)
    assert recorder.calls[0] == "clear"


def test_memory_is_asked_for() -> None:
    told = answer(Stepping(Recorder()), {"memory": True})
    assert told["panels"] == 5
    assert told["peak"] == pytest.approx(peak_memory(), rel=0.5)
    assert Stepping(Recorder()).first([1]) == 42
    with pytest.raises(ValueError, match="unknown command: \\['jump'\\]"):
        answer(Stepping(Recorder()), {"jump": 1})


def test_sotol_in_a_process_of_its_own() -> None:
    model = find_model("smollm2")
    begin = [sys.executable, "-m", "bench.engines", "sotol", str(model), "1", "64"]
    with Child([*begin, "8"], {}) as child:
        assert child.loaded["about"].startswith("sotol ")
        assert child.ask({"prefill": [600, 700, 800]})["seconds"] > 0
        prompts = [[600 + i, 700] for i in range(8)]
        assert child.ask({"prompts": prompts, "answers": [list(range(900, 908))] * 3})["seconds"] > 0
        memory = child.ask({"memory": True})
    assert memory["panels"] > 90e6
    assert memory["peak"] > memory["panels"] + memory["cache"] / 4
    assert seconds_to_output([*begin, "1", "first", "600", "700"], {}) > 0


def test_sotol_sees_each_sequence_as_if_alone() -> None:
    from bench.engines.sotol import Sotol

    model = find_model("smollm2")
    stepper = Sotol(Setup(str(model), 1, 64, 8))
    stepper.prompt([600, 700, 800], 0)
    stepper.prompt([601, 701, 801], 1)
    stepper.step([900, 901], 3)
    with LLM(model, threads=1, ctx=64) as llm:
        assert stepper.likeliest() == int(llm.logits([[601, 701, 801, 901]])[0][-1].argmax())


def test_a_plain_read_has_the_bytes_of_a_token() -> None:
    model = find_model("smollm2")
    assert 0.9 < token_bytes(str(model)) / model.stat().st_size < 1
    engine = ENGINES["plain read"].build(Setup(str(model), 2, 64, 1))
    assert 0 < engine.decode([[1]], [[1]] * 2) < 10


# ---- processes


def test_what_an_engine_says_when_it_ends(tmp_path: Path) -> None:
    script = tmp_path / "engine.py"
    script.write_text("import sys\nprint('{}', flush=True)\nsys.stdin.readline()\nsys.exit('first\\nno such thing\\n')")
    with Child([sys.executable, str(script)], {}) as child, pytest.raises(EngineError, match=r"^no such thing$"):
        child.ask({})
    with pytest.raises(EngineError, match="ended with code 3"):
        Child([sys.executable, "-c", "raise SystemExit(3)"], {})
    with pytest.raises(EngineError, match="No such file"):
        Child([str(tmp_path / "nothing")], {})
    with pytest.raises(EngineError, match=r"^more$"):
        seconds_to_output([sys.executable, "-c", "import sys; sys.exit('no\\nmore')"], {})


def test_an_engine_that_hangs() -> None:
    with pytest.raises(EngineError, match="it took more than 0 s"):
        Child([sys.executable, "-c", "import time; time.sleep(60)"], {}, longest=0.1)


def test_waiting_for_quiet_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "busy_cores", lambda: 1.5)
    assert Patience(0).wait() == 1.5
    calm = iter([1.5, 0.05, 1.5, 1.5])
    monkeypatch.setattr(machine, "busy_cores", lambda: next(calm))
    patience = Patience(1.5)
    assert patience.wait() == 0.05
    assert patience.wait() == 1.5  # after one more wait, there is none left


def test_a_crowd_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, command: Sequence[str]) -> None:
            super().__init__(command)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    with machine.crowded(3):
        assert [loop.poll() for loop in started] == [None, None]
    assert all(loop.poll() is not None for loop in started)


# ---- a whole run


@pytest.fixture
def run(fake: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Result], dict[str, str], list[str]]:
    """All rows with four engines, of which one falls over with 16 sequences and one does not load."""
    monkeypatch.setattr(machine, "busy_cores", lambda: 0.1)
    names = ["sotol", "llama.cpp", "llama.cpp flash", "OpenVINO bf16", "plain read"]
    left_out, said = dict[str, str](), list[str]()
    job = Job(find_model("smollm2"), 2, 2, ROWS, dict.fromkeys(names, fake), {}, Patience(0), said.append)
    return measure(job, {}, left_out), left_out, said


def test_rows_of_a_run(run: tuple[list[Result], dict[str, str], list[str]]) -> None:
    results, left_out, said = run
    rows = {result.row: result for result in results}
    assert list(rows) == [
        *(row.name for row in GROUPS[0].rows), MEMORY, *(row.name for group in GROUPS[1:] for row in group.rows),
        START, TOKENIZE,
    ]  # fmt: skip
    # A setting of half its sibling's speed has one round.
    assert rows["prefill 512"].engines == {
        "sotol": [512.0] * 2,
        "llama.cpp": [128.0],
        "llama.cpp flash": [256.0] * 2,
    }
    assert rows["decode 64 after 8"].engines["plain read"] == [128.0] * 2
    assert rows["decode 64 after 8"].busy == [0.1, 0.1]
    assert rows["decode 8 sequences"].engines["sotol"] == [256.0] * 2
    assert "llama.cpp flash" not in rows["decode 16 sequences"].engines
    assert "llama.cpp flash" not in rows["decode 64 sequences"].engines
    assert rows[MEMORY].engines["sotol"] == [50.0]
    assert set(rows[START].engines) == {"sotol", "llama.cpp", "llama.cpp flash"}
    assert rows[TOKENIZE].engines == {"sotol": [0.5, 0.4], "tokenizers": [0.8, 0.9]}
    file = find_model("smollm2").name
    assert left_out[f"{file}, decode 16 sequences: llama.cpp flash"] == "flash attention fell over"
    assert left_out[f"{file}, loading: OpenVINO bf16"] == "no bf16 here"
    assert any(line.startswith("prefill 512, round 2 of 2: sotol 512, llama.cpp flash 256") for line in said)


def test_the_table_of_a_run(run: tuple[list[Result], dict[str, str], list[str]]) -> None:
    results, left_out, _ = run
    record = {
        "date": "2026-01-02", "processor": "A CPU", "cpus": 2, "level": "avx2", "rounds": 2, "command": "make bench",
        "versions": {"sotol": "0.1", "plain read": "9 MB a step"}, "left_out": left_out,
        "rows": [json.loads(json.dumps(asdict(result))) for result in results],
    }  # fmt: skip
    lines = table.markdown(record).split("\n")
    assert "| SmolLM2-135M-Instruct.Q4_1, 2 threads | sotol | llama.cpp | to the best peer | to llama.cpp |" in lines
    assert "| prefill 512 | 512 (512) | 256 (256) flash | **2.00** llama.cpp flash | 2.00 |" in lines
    assert "| decode 16 sequences | 512 (512) | 128 (128) | **4.00** llama.cpp | 4.00 |" in lines
    assert "| tokenise 1 MB of text on one thread, s | 0.40 (0.45) | - | **2.00** tokenizers | - |" in lines
    assert "| peak memory, MB | 50.0 (50.0) | 50.0 (50.0) | **1.00** llama.cpp | 1.00 |" in lines
    assert any("would allow 128 tokens/s; decode 64 after 8 has 50% of that" in line for line in lines)
    assert any(line.endswith("beside a busy process: sotol 50%, llama.cpp 50%.") for line in lines)
    assert any("sotol's: panels 20" in line for line in lines)
    assert "- sotol: 0.1" in lines
    assert "- command: `make bench`" in lines


def test_a_context_that_the_model_lacks(fake: str, tmp_path: Path) -> None:
    left_out = dict[str, str]()
    rows = ["prefill 4096", "decode 8 sequences"]
    job = Job(tiny_model(tmp_path), 1, 1, rows, {"sotol": fake}, {}, Patience(0), lambda _: None)
    assert measure(job, {}, left_out) == []
    assert left_out == {
        "tiny.gguf, context of 8192": "the model's own ends at 64",
        "tiny.gguf, context of 128": "the model's own ends at 64",
    }


def test_a_row_that_sotol_did_not_run() -> None:
    row = {"row": "x", "unit": "tokens/s", "engines": {"llama.cpp": [2.0]}, "busy": [], "about": {}}
    assert table.better(row, "sotol") is None
    assert table._line(row, ["sotol", "llama.cpp"]) == "| x | - | 2.0 (2.0) | - | - |"


def test_what_is_slower_than_its_sibling() -> None:
    speeds = {"sotol": [1.0], "llama.cpp": [80.0], "llama.cpp flash": [100.0], "ik_llama.cpp": [74.0, 70.0]}
    assert slower(speeds) == set()
    assert slower({**speeds, "ik_llama.cpp flash": [100.0]}) == {"ik_llama.cpp"}


def test_commands_of_rows() -> None:
    row = Row("x", 64, 3, 2)
    assert row.tokens == 6
    command = row.command(49152, 0)
    assert command == row.command(49152, 1)
    assert [len(ids) for ids in command["prompts"]] == [64, 64]
    assert command["prompts"][0] != command["prompts"][1]
    assert [len(ids) for ids in command["answers"]] == [2, 2, 2]
    prompt = Row("y", 512)
    assert prompt.tokens == len(prompt.command(49152, 0)["prefill"]) == 512
    assert prompt.command(49152, 0) != prompt.command(49152, 1)


def test_a_start_has_sixteen_tokens() -> None:
    ids, text = start_prompt(find_model("smollm2"))
    assert len(ids) == 16
    assert Tokenizer.from_gguf(find_model("smollm2")).encode(text) == ids


# ---- tokenising


def test_the_judge_of_tokenising_has_the_same_ids() -> None:
    text = tokenizing.mixed_text(30_000)
    assert 29_990 < len(text.encode()) <= 30_000
    metadata = read_gguf(find_model("smollm2")).metadata
    judge = tokenizing.judge_for(metadata)
    ids = Tokenizer.from_metadata(metadata).encode(text, add_special=False)
    assert judge.encode(text, add_special_tokens=False).ids == list(ids)
    with pytest.raises(ValueError, match="kind 'bert'"):
        tokenizing.judge_for({"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": []})


# ---- options


def test_rows_by_their_beginning() -> None:
    assert peers.chosen_rows([]) == list(ROWS)
    assert peers.chosen_rows(["prefill", "peak"]) == ["prefill 512", "prefill 4096", MEMORY]
    assert peers.chosen_rows(["decode 64 after 8"]) == ["decode 64 after 8"]  # a whole name is that row alone
    with pytest.raises(ValueError, match="no row begins with 'x'"):
        peers.chosen_rows(["prefill", "x"])


def test_a_level_holds_for_all_engines() -> None:
    assert peers.variables("avx2").items() >= {("SOTOL_CPU", "avx2"), ("ONEDNN_MAX_CPU_ISA", "AVX2")}
    assert "SOTOL_CPU" not in peers.variables(None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.gguf"], "no model 'nothing.gguf'"),
        (["--rounds", "0"], "are at least 1"),
        (["--only", "nonsense"], "no row begins with 'nonsense'"),
    ],
)
def test_mistakes(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", *arguments])
    with pytest.raises(SystemExit, match="2"):
        peers.main()
    assert said in capsys.readouterr().err.rstrip().split("\n")[-1]


def test_a_run_writes_its_record(
    fake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, none = Path(fake), (tmp_path / "none", "make it")
    monkeypatch.setattr(
        peers, "PYTHONS", dict.fromkeys(peers.PYTHONS, none) | {"sotol": (here, ""), "llama": (here, "")}
    )
    file = tmp_path / "record.json"
    options = ["smollm2", "--rounds", "1", "--patience", "0", "--only", "prefill 512", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["peers", *options])
    peers.main()
    captured = capsys.readouterr()
    assert "OpenVINO is left out: it is not installed (make it does that)" in captured.err
    record = json.loads(file.read_text())
    assert captured.out == table.markdown(record) + "\n"
    assert record["rows"][0]["engines"]["llama.cpp flash"] == [256.0]
    assert record["left_out"].keys() == {"ik_llama.cpp", "OpenVINO", "vLLM"}
    monkeypatch.setattr(sys, "argv", ["table", str(tmp_path / "none.json")])
    with pytest.raises(SystemExit, match="2"):
        table.main()
    assert "is no record of bench.peers" in capsys.readouterr().err
