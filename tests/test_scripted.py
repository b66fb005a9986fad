"""The scripted model of other tests: it says what it is told, in chats and streams, cut by max_tokens or not."""

from tests.support.scripted import scripted


def test_it_says_what_it_is_told() -> None:
    with scripted('Héllo <think>\n{"a": 1}', shown=["<think>"]) as llm:
        answer = llm.chat([{"role": "user", "content": "Hi"}], seed=1)
        assert (answer.text, answer.finish_reason) == ('Héllo <think>\n{"a": 1}', "stop")
        assert "".join(llm.stream_chat([{"role": "user", "content": "Hi"}])) == answer.text
        assert llm.chat([{"role": "user", "content": "Hi"}], max_tokens=3).text == "Hé"


def test_it_may_answer_the_prompt() -> None:
    with scripted(lambda prompt: prompt.split("<|user|>")[-1].split("<|end|>")[0].upper()) as llm:
        answers = [llm.chat([{"role": "user", "content": text}]).text for text in ("abc", "def")]
        assert answers == ["ABC", "DEF"]
