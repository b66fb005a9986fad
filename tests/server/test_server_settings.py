"""`Settings`: what an operator may decide, and what is refused in which words."""

from pathlib import Path
from typing import Any

import pytest

from sotol.errors import SotolError
from sotol.server.settings import SECONDS, WHOLE, Settings, is_loopback, read_keys


def test_defaults_are_safe() -> None:
    settings = Settings()
    assert not settings.reachable
    assert (settings.host, settings.port, settings.cors_origins, settings.allowed_hosts) == ("127.0.0.1", 8080, (), ())
    assert (settings.log_prompts, settings.open_metrics, settings.open) == (False, False, False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "10.0.0.1"])
def test_where_others_reach_it_there_must_be_keys(host: str) -> None:
    with pytest.raises(ValueError, match=r"host is .*there are no API keys"):
        Settings(host=host)
    assert Settings(host=host, api_keys=("secret",)).reachable
    assert Settings(host=host, open=True).reachable
    assert not Settings(host=host, uds=Path("/tmp/x")).reachable


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    assert not Settings(host=host).reachable


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("bad", ["1", 1.0, True, -1, 1 << 70])
def test_whole_numbers_have_bounds(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} is .*it must be a whole number from"):
        Settings(**{name: bad})
    least, most = WHOLE[name]
    for good in (least, most):
        assert getattr(Settings(**{name: good}), name) == good  # type: ignore[arg-type]  # a number


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("bad", ["1", True, -1, float("nan"), float("inf")])
def test_seconds_have_bounds(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} is .*it must be a number of seconds"):
        Settings(**{name: bad})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": ""}, "host is ''"),
        ({"host": "a b"}, "host is"),
        ({"host": 7}, "host is 7"),
        ({"root_path": "llm"}, "root_path is 'llm'"),
        ({"root_path": "/llm/"}, "root_path is"),
        ({"root_path": "/a/../b?c"}, "root_path is"),
        ({"ssl_keyfile": "key.pem"}, "give ssl_certfile"),
        ({"ssl_certfile": 3}, "ssl_certfile is 3"),
        ({"api_keys": "secret"}, "api_keys must be a tuple"),
        ({"api_keys": ("a b",)}, r"api_keys\[0\] is no key"),
        ({"api_keys": ("good", "")}, r"api_keys\[1\] is no key"),
        ({"api_keys": ("ключ",)}, r"api_keys\[0\] is no key"),
        ({"cors_origins": ("example.org",)}, "cors_origins has 'example.org'"),
        ({"cors_origins": ("https://example.org/",)}, "cors_origins has"),
        ({"cors_origins": ("https://*.*.org",)}, "cors_origins has"),
        ({"allowed_hosts": ("https://example.org",)}, "allowed_hosts has"),
        ({"allowed_hosts": ("*example.org",)}, "allowed_hosts has"),
        ({"allowed_hosts": "example.org"}, "allowed_hosts is 'example.org'; must be a tuple"),
        ({"log_format": "xml"}, "log_format is 'xml'; it must be one of text, json"),
        ({"log_level": "loud"}, "log_level is 'loud'"),
        ({"open": 1}, "open is 1"),
    ],
)
def test_what_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Settings(**options)
    assert "ключ" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    settings = Settings(api_keys=("secret",), ssl_certfile=Path("c"), ssl_keyfile_password="hidden")
    assert "secret" not in repr(settings)
    assert "hidden" not in repr(settings)


def test_none_stands_for_a_default() -> None:
    assert Settings.of({"port": None, "host": "localhost"}) == Settings(host="localhost")
    with pytest.raises(TypeError, match=r"no option 'prot'.*'port'"):
        Settings.of({"prot": 1})


def test_keys_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# of Ann\nfirst\n\n  second \n#third\n")
    assert read_keys(path) == ("first", "second")
    path.write_text("# nobody\n")
    with pytest.raises(SotolError, match="has no API key"):
        read_keys(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SotolError, match="ASCII"):
        read_keys(path)
    with pytest.raises(SotolError, match="no such file"):
        read_keys(tmp_path / "none")
