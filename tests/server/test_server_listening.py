"""What a server listens on, and what can be in the way."""

import os
import socket
import stat
from pathlib import Path

import pytest

from sotol.errors import SotolError
from sotol.server.listening import certificate, listen
from sotol.server.settings import Settings

PEM = Path(__file__).parents[1] / "data" / "localhost.pem"  # a certificate and its key; nobody trusts it


def test_a_free_port() -> None:
    listening = listen(Settings(port=0))
    try:
        [one] = listening.sockets
        host, port = one.getsockname()
        assert host == "127.0.0.1"
        assert listening.address == f"http://127.0.0.1:{port}"
        with socket.create_connection((host, port)):
            pass
        with pytest.raises(SotolError, match=rf"port {port} of 127\.0\.0\.1 is in use: .*another --port"):
            listen(Settings(port=port))
    finally:
        listening.close()
    listen(Settings(port=port)).close()  # free again


def test_all_addresses_of_a_name_have_one_port() -> None:
    listening = listen(Settings(host="localhost", port=0, root_path="/llm"))
    ports = {one.getsockname()[1] for one in listening.sockets}
    listening.close()
    assert len(ports) == 1
    assert listening.address == f"http://localhost:{ports.pop()}/llm"


def test_addresses_that_are_not_here() -> None:
    with pytest.raises(SotolError, match=r"--host: 203\.0\.113\.7 is no address of this machine"):
        listen(Settings(host="203.0.113.7", port=0, open=True))
    with pytest.raises(SotolError, match=r"--host: no address is known for no\.such\.host\.invalid"):
        listen(Settings(host="no.such.host.invalid", open=True))


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for mode in (0o600, 0o660):
        before = os.umask(0o022)
        try:
            listening = listen(Settings(uds=path, uds_mode=mode))
            assert os.umask(0o022) == 0o022
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert listening.address == f"unix:{path}"
        with pytest.raises(SotolError, match="another server listens on"):
            listen(Settings(uds=path))
        listening.close()
        assert not path.exists()


def test_what_is_in_the_way_of_a_unix_socket(tmp_path: Path) -> None:
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as gone:  # of a server that was killed
        gone.bind(str(left))
    listen(Settings(uds=left)).close()
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(SotolError, match="is there already, and no socket"):
        listen(Settings(uds=file))
    assert file.read_text() == "precious"
    with pytest.raises(SotolError, match=r"--uds: .*no such file"):
        listen(Settings(uds=tmp_path / "no" / "such"))
    with pytest.raises(SotolError, match=r"--uds: .*too long"):
        listen(Settings(uds=tmp_path / ("x" * 200)))


def test_certificates(tmp_path: Path) -> None:
    assert certificate(Settings()) is None
    assert certificate(Settings(ssl_certfile=PEM)) is not None
    listening = listen(Settings(ssl_certfile=PEM, port=0))
    listening.close()
    assert listening.address.startswith("https://127.0.0.1:")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for given, said in (
        (Settings(ssl_certfile=tmp_path / "none.pem"), "none.pem: no such file"),
        (Settings(ssl_certfile=text), "text.pem: no certificate with its key"),
        (Settings(ssl_certfile=PEM, ssl_keyfile=text), "no certificate with its key"),
    ):
        with pytest.raises(SotolError, match=f"^--ssl-certfile, --ssl-keyfile: .*{said}"):
            certificate(given)
