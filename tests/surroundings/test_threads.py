"""Everything public from several threads: loading, reading, closing; and threads with small stacks."""

from pathlib import Path

from tests.support.child import said
from tests.support.tiny_model import tiny_model

LOADING = """
from sotol import LLM
found = []

def work():
    with LLM(sys.argv[1], threads=2) as llm:
        found.append(llm.generate("hello", max_tokens=8, seed=1).text)

threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
say([len(found), len(set(found))])
say(left(sys.argv[1]))
"""

CLOSING = """
from sotol import LLM, SotolError
endless = dict(max_tokens=4000, ignore_eos=True, seed=1)
for _ in range(15):
    llm = LLM(sys.argv[1], threads=3)
    heard = []

    def read():
        try:
            for _ in llm.stream("hello", **endless):
                pass
            heard.append("the end")
        except SotolError as error:
            heard.append(str(error).removeprefix("no more requests: "))

    readers = [threading.Thread(target=read) for _ in range(6)]
    closers = [threading.Thread(target=llm.close) for _ in range(4)]
    [thread.start() for thread in readers + closers]
    [thread.join() for thread in readers + closers]
    say([set(heard) <= {"the model is closed", "the end"}, len(heard), left(sys.argv[1])[0]])
"""

READING = """
from sotol import LLM
with LLM(sys.argv[1], threads=2) as llm:
    for _ in range(20):
        stream, pieces = llm.stream("hello", max_tokens=60, ignore_eos=True, seed=1), []
        readers = [threading.Thread(target=lambda: pieces.extend(stream)) for _ in range(4)]
        [thread.start() for thread in readers]
        [thread.join() for thread in readers]
        say([len("".join(pieces)) == len(stream.completion.text), len(stream.completion.tokens)])
"""

SMALL = """
from sotol import LLM
threading.stack_size(256 << 10)

def work():
    with LLM(sys.argv[1], threads=3) as llm:
        say(len(llm.logits([[5, 6, 7] * 200])[0]))
        say(len(llm.generate([5] * 300, max_tokens=5, ignore_eos=True).tokens))

thread = threading.Thread(target=work)
thread.start()
thread.join()
say(threading.stack_size())
"""

LONG = {"llama.context_length": 4096}


def test_models_are_loaded_by_several_threads(tmp_path: Path) -> None:
    assert said(LOADING, tiny_model(tmp_path)) == [[8, 1], [[], [], []]]


def test_a_model_is_closed_by_several_threads_while_others_read(tmp_path: Path) -> None:
    assert said(CLOSING, tiny_model(tmp_path, LONG)) == [[True, 6, []]] * 15


def test_a_stream_is_read_by_several_threads(tmp_path: Path) -> None:
    assert said(READING, tiny_model(tmp_path, LONG)) == [[True, 60]] * 20


def test_small_stacks(tmp_path: Path) -> None:
    """Of the thread that loads, and of those that are started by default."""
    assert said(SMALL, tiny_model(tmp_path, LONG)) == [600, 5, 256 << 10]
