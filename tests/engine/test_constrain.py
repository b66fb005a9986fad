"""Constrained answers: what they are, when they end, and that nobody else notices them."""

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tests.support.random_model import random_model
from tests.support.scripted import scripted, scripted_model

from sotol import LLM, Sampling, SotolError, Tokenizer
from sotol.engine import constrain
from sotol.engine.constrain import Grammars, Matcher
from sotol.engine.grammars import Around, Thinking
from sotol.tokenizers.bpe import CHARACTER_OF_BYTE

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
ANY = Sampling(temperature=1, top_k=0, top_p=1, min_p=0, max_tokens=200)
CONSTRAINTS: list[dict[str, Any]] = [
    {"json": True},
    {"schema": PERSON},
    {"schema": json.dumps(PERSON)},
    {"regex": "[a-c]{3,9}(x|yz)*!"},
    {"grammar": 'root ::= "a" [0-9]{1,20} end\nend ::= "." | ";" root'},
    {"grammar": 'start: "a" /[0-9]{1,20}/ end\nend: "." | ";" start'},
]


@pytest.fixture(scope="module")
def anything() -> Iterator[LLM]:
    with LLM(random_model()) as llm:
        yield llm


# ---- what answers are


@pytest.mark.parametrize("temperature", [0, 1])
def test_json(anything: LLM, temperature: float) -> None:
    answers = anything.generate("x", n=20, sampling=ANY, seed=1, temperature=temperature, json=True)
    done = [one for one in answers if one.finish_reason == "stop"]
    assert len(done) > 5
    assert all(isinstance(json.loads(one.text), dict) for one in done)
    assert all(len(one.tokens) == 200 for one in answers if one not in done)


@pytest.mark.parametrize(
    ("given", "pattern"),
    [(CONSTRAINTS[3], CONSTRAINTS[3]["regex"]), *((c, r"(a\d{1,20};)*a\d{1,20}\.") for c in CONSTRAINTS[4:])],
)
def test_expressions_and_grammars(anything: LLM, given: dict[str, Any], pattern: str) -> None:
    answers = anything.generate("x", n=20, sampling=ANY, seed=1, **given)
    done = [one.text for one in answers if one.finish_reason == "stop"]
    assert len(set(done)) > 5
    assert all(re.fullmatch(pattern, text) for text in done)


def test_what_a_model_would_say_anyway_stays() -> None:
    said = '{"name": "Ann", "age": 33}'
    with scripted(said) as llm:
        answer = llm.chat([{"role": "user", "content": "Who?"}], schema=PERSON)
        assert (answer.text, answer.finish_reason) == (said, "stop")
        assert llm.chat([{"role": "user", "content": "Who?"}], json=True).text == said


def test_an_answer_ends_where_nothing_can_follow() -> None:
    with scripted("yes, and more") as llm:
        answer = llm.generate("x<|assistant|>", regex="yes|no")
        assert (answer.text, answer.finish_reason, len(answer.tokens)) == ("yes", "stop", 3)
        longer = llm.generate("x", regex="yes.*", max_tokens=6)
        assert (longer.text[:3], longer.finish_reason) == ("yes", "length")


def test_an_end_is_allowed_where_the_grammar_may_end_and_nowhere_else() -> None:
    with scripted("") as llm:  # it wants to end at once
        ids = llm.chat_prompt([{"role": "user", "content": "x"}])
        assert len(llm.generate(ids, regex="a{3,9}", seed=1).text) == 3
        assert len(llm.generate(ids, regex="a{3,9}", seed=1, ignore_eos=True).text) == 9
        assert llm.generate(ids, regex="a{3,9}", seed=1, ignore_eos=True).finish_reason == "stop"
        cut = llm.generate(ids, regex="a{3,9}", seed=1, max_tokens=2)
        assert (cut.text, cut.finish_reason) == ("aa", "length")
        exact = llm.generate(ids, regex="a{3,9}", seed=1, ignore_eos=True, max_tokens=9)
        assert (exact.text, exact.finish_reason) == ("a" * 9, "stop")


def test_stop_strings_still_stop() -> None:
    with scripted("one two three") as llm:
        answer = llm.chat([{"role": "user", "content": "x"}], regex="[a-z ]+", stop=" th")
        assert (answer.text, answer.finish_reason) == ("one two", "stop")
        forced = llm.chat([{"role": "user", "content": "x"}], regex="one two three four", stop=" three")
        assert (forced.text, forced.finish_reason) == ("one two", "stop")


def test_tokens_that_must_follow_run_together() -> None:
    model = scripted_model("abc")
    runner: Any = model.runner
    with LLM(model) as llm:
        ids = llm.chat_prompt([{"role": "user", "content": "x"}])
        for logprobs, steps in (None, 1), (0, 26):
            before = runner.steps
            answer = llm.generate(ids, regex="abcdefghijklmnopqrstuvwxyz", logprobs=logprobs)
            assert (answer.text, answer.finish_reason) == ("abcdefghijklmnopqrstuvwxyz", "stop")
            assert runner.steps == before + steps
        before = runner.steps
        assert llm.generate(ids, regex="ab(c|d)efgh(i|j)", max_tokens=40, temperature=0).text[:3] == "abc"
        assert runner.steps == before + 3
        cut = llm.generate(ids, regex="abcdefgh", max_tokens=5)
        assert (cut.text, cut.finish_reason, len(cut.tokens)) == ("abcde", "length", 5)


@pytest.mark.parametrize("given", CONSTRAINTS)
def test_log_probabilities_change_no_token(anything: LLM, given: dict[str, Any]) -> None:
    for seed in range(5):
        plain = anything.generate("x", sampling=ANY, seed=seed, **given)
        told = anything.generate("x", sampling=ANY, seed=seed, logprobs=2, **given)
        assert told.tokens == plain.tokens
        assert told.logprobs is not None
        assert len(told.logprobs) == len(told.tokens)
        assert all(one.logprob <= 0 and len(one.top) == 2 for one in told.logprobs)


def test_penalties_see_tokens_that_must_follow() -> None:
    with scripted("a") as llm:
        ids = llm.chat_prompt([{"role": "user", "content": "x"}])
        # "b" and "c" are equally likely, until one of them had to be.
        free = {llm.generate(ids, regex="abbb(b|c)", seed=i, frequency_penalty=0).text[-1] for i in range(20)}
        assert free == {"b", "c"}
        bound = {
            llm.generate(ids, regex="abbb(b|c)", seed=i, frequency_penalty=2, temperature=0.2).text[-1]
            for i in range(20)
        }
        assert bound == {"c"}


def test_biases_count_and_may_leave_nothing() -> None:
    with scripted("a") as llm:
        ids = llm.chat_prompt([{"role": "user", "content": "x"}])
        forbidden = {llm.tokenize("b")[0]: float("-inf")}
        assert llm.generate(ids, regex="b|c", logit_bias=forbidden).text == "c"
        with pytest.raises(SotolError, match="no token left to choose"):
            llm.generate(ids, regex="b", logit_bias=forbidden)


# ---- in company


def test_load_and_company_change_nothing(anything: LLM) -> None:
    wanted: list[dict[str, Any]] = [{}, *CONSTRAINTS]
    options = [{"seed": seed, "max_tokens": 60, **given} for seed in range(4) for given in wanted]
    lone = [anything.generate("x", sampling=ANY, **one) for one in options]
    with ThreadPoolExecutor(len(options)) as pool:
        together = list(pool.map(lambda one: anything.generate("x", sampling=ANY, **one), options))
    assert [one.tokens for one in together] == [one.tokens for one in lone]
    assert [one.finish_reason for one in together] == [one.finish_reason for one in lone]


def test_several_answers_are_those_of_their_seeds(anything: LLM) -> None:
    both = anything.generate(["x", "y"], n=3, sampling=ANY, seed=5, schema=PERSON)
    for prompt, answers in zip(["x", "y"], both, strict=True):
        for i, answer in enumerate(answers):
            assert answer.tokens == anything.generate(prompt, sampling=ANY, seed=5 + i, schema=PERSON).tokens


def test_a_constrained_stream_can_be_left(anything: LLM) -> None:
    for _ in range(3):
        with anything.stream("x", json=True) as stream:
            next(stream)
    while anything.load().running:
        pass
    assert anything.load().waiting == 0


@pytest.mark.parametrize("kind", [SotolError("lost"), BaseException("panicked")])
def test_what_fails_in_a_mask_ends_one_request(monkeypatch: pytest.MonkeyPatch, kind: BaseException) -> None:
    real, calls = Matcher.mask, 0

    def mask(self: Matcher) -> Any:
        nonlocal calls
        if self._insist:
            calls += 1
            if calls == 3:
                raise kind
        return real(self)

    monkeypatch.setattr(Matcher, "mask", mask)
    with LLM(random_model()) as llm:
        expected = llm.generate("x", sampling=ANY, seed=2, json=True).tokens
        good = llm.stream("x", sampling=ANY, seed=2, json=True)
        with pytest.raises((SotolError, RuntimeError), match=r"lost|panicked"):
            llm.generate("x", sampling=ANY, seed=1, regex="[a-z]{50,}", ignore_eos=True)
        assert good.result().tokens == expected
        assert llm.generate("x", sampling=ANY, seed=2, json=True).tokens == expected


def test_the_thread_of_masks_ends_with_the_model() -> None:
    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("sotol-masks")}

    others = threads()  # of earlier tests, which may end at any moment
    llm = LLM(random_model())
    llm.generate("x", max_tokens=3)
    assert not threads() - others
    llm.generate("x", max_tokens=3, json=True)
    (own,) = threads() - others
    llm.close()
    own.join(20)
    assert not own.is_alive()


# ---- vocabularies


def test_a_vocabulary_without_an_end() -> None:
    fields: dict[str, object] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": list(CHARACTER_OF_BYTE),
        "tokenizer.ggml.merges": ["a b"],
    }
    tokenizer = Tokenizer.from_metadata(fields, "endless")
    assert not tokenizer.end_of_generation
    constraint = Grammars(tokenizer).compile(Sampling(regex="ab?"))
    assert constraint is not None
    matcher = constraint.matcher()
    mask = matcher.mask()
    assert mask is not None
    assert mask.shape == (256,)
    assert np.flatnonzero(mask == 0).tolist() == tokenizer.encode("a")
    matcher.accept(tokenizer.encode("a")[0])
    assert not matcher.over
    mask = matcher.mask()
    assert mask is not None
    assert np.flatnonzero(mask == 0).tolist() == tokenizer.encode("b")
    matcher.accept(tokenizer.encode("b")[0])
    assert matcher.over


@pytest.mark.parametrize("size", [257, 264, 287, 288, 289])
def test_hidden_tokens_are_never_allowed(size: int) -> None:
    tokens = [*CHARACTER_OF_BYTE, *(f"<|{i}|>" for i in range(256, size))]
    fields: dict[str, object] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 256 + [3] * (size - 256),
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 256,
    }
    tokenizer = Tokenizer.from_metadata(fields, "hidden", logits=size + 50)
    constraint = Grammars(tokenizer).compile(Sampling(regex="(?s:.*)"))
    assert constraint is not None
    mask, insisting = constraint.matcher().mask(), constraint.matcher(insist=True).mask()
    assert mask is not None
    assert insisting is not None
    assert mask.shape == insisting.shape == (size,)
    assert set(np.flatnonzero(mask == 0)) - set(range(256)) == {256}
    assert set(np.flatnonzero(insisting == 0)) <= set(range(256))


def test_sentencepiece_writes_no_space_before_what_must_follow() -> None:
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b", "▁a", "ab", "▁ab"]
    fields: dict[str, object] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(texts))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 6,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    tokenizer = Tokenizer.from_metadata(fields, "pieces")
    assert tokenizer.space_prefix
    assert tokenizer.encode("ab", add_special=False, continued=True) == [texts.index("ab")]
    constraint = Grammars(tokenizer).compile(Sampling(regex="baab ab"))
    assert constraint is not None
    matcher = constraint.matcher()
    ids = [texts.index("b")]
    matcher.accept(ids[0])
    ids += matcher.forced()
    while not matcher.over:
        mask = matcher.mask()
        assert mask is not None
        ids.append(int(np.flatnonzero(mask == 0)[-1]))
        matcher.accept(ids[-1])
    assert tokenizer.decode(ids, continued=True) == "baab ab"


# ---- grammars that are kept, and those that are refused


def test_what_was_compiled_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constrain, "KEPT", 3)
    grammars = Grammars(scripted_model("").tokenizer)
    first = grammars.compile(Sampling(regex="a"))
    assert grammars.compile(Sampling(regex="a", temperature=0)) is first
    assert grammars.compile(Sampling(grammar="start: /a/")) is not first
    for text in "bc":
        grammars.compile(Sampling(regex=text))
    assert grammars.compile(Sampling(regex="a")) is not first
    assert grammars.compile(Sampling()) is None


def test_an_llm_compiles_ahead(anything: LLM) -> None:
    anything.compile(Sampling(schema=PERSON))
    with pytest.raises(ValueError, match="regex: unclosed group"):
        anything.compile(Sampling(regex="("))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"regex": "(a"}, "regex: unclosed group, at character 1 of (a"),
        ({"regex": "a(?=b)c"}, "regex: look-around, including look-ahead and look-behind, is not supported"),
        ({"regex": r"(a)\1"}, "regex: backreferences are not supported, at character 4"),
        ({"regex": "a$b"}, "regex: it looks around (End)"),
        ({"regex": ""}, "regex: it allows no answer"),
        ({"regex": "(" * 5000 + ")" * 5000}, "regex: "),
        ({"regex": "a" * 20000}, "regex has 20000 characters; it may have 16384"),
        ({"grammar": "start: foo bar"}, 'grammar: unknown name: "foo", at line 1, column 8'),
        ({"grammar": 'start: "a'}, "grammar: lexer error, at line 1"),
        ({"grammar": ""}, "grammar: "),
        ({"grammar": "start: start"}, "grammar: nothing can follow"),
        ({"grammar": "start: " + "(" * 5000 + '"a"' + ")" * 5000}, "grammar: lark grammar too deeply nested"),
        ({"grammar": 'root ::= "a'}, "grammar: Unexpected end of input at line 1"),
        ({"grammar": "root ::= foo"}, "grammar: Rule 'foo' not found"),
        ({"grammar": 'foo ::= "a"'}, "grammar: No 'root' rule found"),
        ({"grammar": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000}, "grammar: its parentheses are nested too deeply"),
        ({"grammar": 'root ::= "a"\n' * 9000}, "grammar has 117000 characters; it may have 65536"),
        ({"json": True, "regex": "a"}, "json and regex are given; an answer can have one of"),
        ({"regex": 7}, "regex is 7; it must be text"),
        ({"json": "yes"}, "json is 'yes'; it must be True or False"),
        ({"schema": 7}, "schema is 7; it must be a dict, JSON text, or a class"),
    ],
)  # fmt: skip
def test_what_is_refused_is_said(anything: LLM, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        anything.generate("x", max_tokens=1, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"regex": "((a{1000}){1000}){1000}"},
        {"regex": "(?:a?){2000}a{2000}"},
        {"regex": "(?:(?:a|b|c|d|e){1,200}x?){1,200}(?s:.{0,5000})z"},
        {"regex": "(.*a.{200}){20}"},
        {"grammar": 'root ::= "ab"{100000000}'},
        {"grammar": "start: a{100000}\na: b{100000}\nb: /x/ | /y/"},
        {"grammar": 'start: a a a a a a\na: a a | "x" | ""'},
    ],
)
def test_bombs_do_not_go_off(anything: LLM, given: dict[str, Any]) -> None:
    """They are refused, or answered; a request that becomes too costly on the way ends with an error."""
    try:
        answer = anything.generate("x", max_tokens=20, sampling=ANY, seed=1, **given)
    except (ValueError, SotolError):
        return
    assert len(answer.tokens) <= 20


# ---- thinking


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_an_answer_begins_after_the_thinking(hidden: bool, begun: bool) -> None:
    marks = ("<think>", "</think>")
    model = scripted_model("", special=marks if hidden else (), shown=() if hidden else marks)
    tokenizer = model.tokenizer
    begin, end = (tuple(tokenizer.shown(mark)) for mark in marks)
    assert isinstance(begin[0], int) == hidden
    constraint = Grammars(tokenizer).compile(Sampling(schema=PERSON), Around(Thinking(((begin, end),), begun)))
    assert constraint is not None

    def accepted(text: str) -> bool:
        matcher = constraint.matcher()
        for token in tokenizer.encode(text, special=True, add_special=False):
            mask = matcher.mask()
            if mask is None or mask[token]:
                return False
            matcher.accept(token)
        return matcher.over

    said = '{"name": "</think>" ,"age": 3}' if not hidden else '{"name": "x", "age": 3}'
    thought = 'Maybe {"name": 1}?\n\n'
    assert accepted(said) is not begun
    assert accepted(f"<think>{thought}</think>\n\n{said}") is not begun or not hidden
    assert accepted(f"{thought}</think>\n\n{said}") is begun
    assert accepted(f"</think>{said}") is begun
    assert not accepted(f"{thought}{said}")
    assert not accepted(f"<think>{thought}</think>Well, {said}")
    mask = constraint.matcher().mask()
    assert mask is not None
    assert all(mask[end_] for end_ in tokenizer.end_of_generation)


# ---- answers as objects


@dataclass
class Person:
    """A class as a schema."""

    name: str
    age: int


def test_an_answer_is_an_object_of_its_class() -> None:
    with scripted('{"name": "Ann", "age": 33}') as llm:
        answer = llm.chat([{"role": "user", "content": "Who?"}], schema=Person)
        assert answer.parsed == Person("Ann", 33)
        assert llm.chat([{"role": "user", "content": "Who?"}], schema=Person, max_tokens=5).parsed is None
        assert llm.chat([{"role": "user", "content": "Who?"}], schema=Person, stop="age").parsed is None
        assert llm.chat([{"role": "user", "content": "Who?"}], schema=PERSON).parsed is None
        assert llm.chat([{"role": "user", "content": "Who?"}]).parsed is None


def test_pydantic_models_are_schemas() -> None:
    from pydantic import BaseModel, field_validator

    class Animal(BaseModel):
        name: str
        legs: int

        @field_validator("legs")
        @classmethod
        def even(cls, legs: int) -> int:
            if legs % 2:
                raise ValueError("legs come in pairs")
            return legs

    for legs in 4, 3:
        with scripted(f'{{"name": "cat", "legs": {legs}}}') as llm:
            answer = llm.chat([{"role": "user", "content": "Which?"}], schema=Animal)
            assert answer.text == f'{{"name": "cat", "legs": {legs}}}'
            assert answer.parsed == (Animal(name="cat", legs=4) if legs == 4 else None)


def test_a_real_model() -> None:
    with LLM("smollm2", ctx=512) as llm:
        asked = [{"role": "user", "content": "Describe a person."}]
        answer = llm.chat(asked, schema=Person, max_tokens=100, seed=1)
        assert answer.finish_reason == "stop"
        assert isinstance(answer.parsed, Person)
        assert json.loads(answer.text) == {"name": answer.parsed.name, "age": answer.parsed.age}
