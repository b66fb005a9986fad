"""The sockets that a server listens on, and its certificate. What is wrong with them is known before a model loads."""

import errno
import os
import socket
import ssl
import stat
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from sotol.errors import SotolError, plain
from sotol.server.settings import Settings

__all__ = ["Listening", "certificate", "listen"]

WILDCARD = "::"  # of IPv6, and here of IPv4 as well
NEWCOMERS = 128  # connections that may wait for the server to accept them


class Listening(NamedTuple):
    """Sockets that are bound, and the address that clients give."""

    sockets: list[socket.socket]
    address: str
    path: Path | None = None  # of a Unix socket

    def close(self) -> None:
        """Free the address."""
        for one in self.sockets:
            one.close()
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()


def listen(settings: Settings) -> Listening:
    """Take the address of the settings. SotolError says what is in the way, and what to do."""
    if settings.uds is not None:
        return _at_path(settings.uds, settings.uds_mode)
    scheme = "http" if settings.ssl_certfile is None else "https"
    sockets = _at_host(settings.host, settings.port)
    port = sockets[0].getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host and "[" not in settings.host else settings.host
    return Listening(sockets, f"{scheme}://{host}:{port}{settings.root_path}")


def certificate(settings: Settings) -> ssl.SSLContext | None:
    """What HTTPS needs, or None for HTTP. SotolError for files that can't be used."""
    if settings.ssl_certfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    names = " and ".join(plain(path) for path in (settings.ssl_certfile, settings.ssl_keyfile) if path is not None)
    try:  # without a password, OpenSSL would ask at the terminal
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, settings.ssl_keyfile_password or "")
    except ssl.SSLError as error:
        why = plain(error.reason or error).lower().replace("_", " ")
        raise SotolError(f"--ssl-certfile, --ssl-keyfile: {names}: no certificate with its key ({why})") from error
    except OSError as error:
        raise SotolError(f"--ssl-certfile, --ssl-keyfile: {names}: {str(error.strerror).lower()}") from error
    return context


def _at_host(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of a name, all with one port."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise SotolError(f"--host: no address is known for {plain(host)}") from error
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        refused: OSError | None = None
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            where = (address[0], port, *address[2:])
            try:
                one = _bound(family, where)
            except OSError as error:
                if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # localhost, where there is no IPv6
                    refused = error
                    continue
                raise SotolError(_refusal(error, host, port)) from error
            sockets.append(stack.enter_context(one))
            port = one.getsockname()[1]
        if not sockets:
            assert refused is not None
            raise SotolError(_refusal(refused, host, port)) from refused
        stack.pop_all()
        return sockets


def _bound(family: int, where: tuple[object, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere this would let two servers have one port
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # connections have it from here
        if family == socket.AF_INET6 and hasattr(socket, "IPV6_V6ONLY"):
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != WILDCARD))
        one.bind(where)
        one.listen(NEWCOMERS)  # now, since two sockets may be bound to one port, but only one may listen
    except BaseException:
        one.close()
        raise
    return one


def _refusal(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {plain(host)} is in use: end what listens there, or give another --port"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this process has: give a --port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host: {plain(host)} is no address of this machine"
    return f"port {port} of {plain(host)}: {str(error.strerror).lower()}"


def _at_path(path: Path, mode: int) -> Listening:
    if not hasattr(socket, "AF_UNIX"):
        raise SotolError("--uds: this system has no Unix sockets: give --host and --port")
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_way(path)
        before = os.umask(0o777 & ~mode)  # or others could connect before its permissions are set
        try:
            one.bind(str(path))
        finally:
            os.umask(before)
        one.listen(NEWCOMERS)
    except OSError as error:
        one.close()
        raise SotolError(f"--uds: {plain(path)}: {str(error.strerror or error).lower()}") from error
    except BaseException:
        one.close()
        raise
    return Listening([one], f"unix:{path}", path)


def _make_way(path: Path) -> None:
    """Remove the socket of a server that is gone."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise SotolError(f"--uds: {plain(path)} is there already, and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise SotolError(f"--uds: another server listens on {plain(path)}")
