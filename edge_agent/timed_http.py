"""Requests that end in time, whatever the server does. No retries, no trust.

A socket's timeout bounds the silence between two bytes only, so a server that sends a byte now and
then could hold a request for ever. A timer shuts the connection down instead.
"""

import contextlib
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from edge_core.errors import Unavailable, quoted

MAX_REDIRECTS = 3
CHUNK_BYTES = 64 * 1024
USER_AGENT = "serinus-agent"


class Answer:
    """A response whose status and headers are known, and whose body was not read yet."""

    def __init__(self, response: urllib3.BaseHTTPResponse, limits: "_Limits") -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._limits = limits

    def chunks(self, size: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The body as it comes, in pieces of at most ``size`` bytes.

        Raises:
            Unavailable: cut, garbled, silent, too late or cancelled.
        """
        try:
            # read1 gives what is there, so that nothing is lost where the connection is cut.
            while chunk := self._response.read1(size, decode_content=False):
                yield chunk
        except (HTTPError, OSError, ValueError) as error:
            raise Unavailable(self._limits.explain(error)) from error
        self._limits.check()


class _Limits:
    """Why one request was ended, if it was: a connection that is shut down just looks finished."""

    def __init__(self, seconds: float, cancelled: threading.Event) -> None:
        self._seconds = seconds
        self._cancelled = cancelled
        self.late = threading.Event()

    def check(self) -> None:
        """Raise ``Unavailable`` where the request was ended from here."""
        if self._cancelled.is_set() or self.late.is_set():
            raise Unavailable(self.explain(Exception()))

    def explain(self, error: BaseException) -> str:
        """What to say of an error, in one line."""
        if self._cancelled.is_set():
            return "the download was ended"
        if self.late.is_set():
            return f"the server is too slow: not done after {self._seconds:.0f} s"
        reason = getattr(error, "reason", None) or error
        return quoted(reason if isinstance(reason, BaseException) else Exception(reason))


class TimedHttp:
    """One request at a time; :meth:`cancel` may be called from another thread."""

    def __init__(self, *, stall_seconds: float, tls: ssl.SSLContext | None = None) -> None:
        """Set up.

        Args:
            stall_seconds: bound of the silence between two bytes, and of connecting.
            tls: whom to trust; none: whom this machine trusts.
        """
        self._stall_seconds = stall_seconds
        self._tls = tls
        self._open: list[socket.socket] = []
        self._pools = _recording_pools(self._open.append)
        self._cancelled = threading.Event()

    def renew(self) -> None:
        """Allow requests again after :meth:`cancel`."""
        self._cancelled.clear()

    def cancel(self) -> None:
        """End the request under way, and refuse others until :meth:`renew`."""
        self._cancelled.set()
        self._shut_down()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], *, seconds: float) -> Iterator[Answer]:
        """Ask for ``url``; everything, the body included, has to be over after ``seconds``.

        Raises:
            Unavailable: no connection, no whole header, or too late.
        """
        with self._asked("GET", url, headers, None, seconds) as answer:
            yield answer

    def post(self, url: str, body: bytes, *, seconds: float, most: int) -> tuple[int, bytes]:
        """Send JSON; returns the answer's status and body, of at most ``most`` bytes.

        Redirects are not followed: what is sent is meant for this server alone.

        Raises:
            Unavailable: no connection, no whole answer, a longer one, or too late.
        """
        headers = {"Content-Type": "application/json"}
        with self._asked("POST", url, headers, body, seconds) as answer:
            found = b""
            for chunk in answer.chunks():
                found += chunk
                if len(found) > most:
                    raise Unavailable(f"the server answers with more than {most} bytes")
            return answer.status, found

    @contextmanager
    def _asked(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, seconds: float
    ) -> Iterator[Answer]:
        limits = _Limits(seconds, self._cancelled)

        def end() -> None:
            limits.late.set()
            self._shut_down()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            limits.check()
            response = self._request(method, url, headers, body, limits)
            try:
                limits.check()
                yield Answer(response, limits)
            finally:
                response.close()
        finally:
            timer.cancel()
            self._forget()

    def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        limits: _Limits,
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._manager(url).request(
                method,
                url,
                body=body,
                headers={
                    "User-Agent": USER_AGENT,
                    "Accept-Encoding": "identity",
                    "Connection": "close",
                    **headers,
                },
                preload_content=False,
                decode_content=False,
                retries=urllib3.Retry(0, redirect=MAX_REDIRECTS),
                redirect=body is None,
                timeout=urllib3.Timeout(self._stall_seconds),
            )
        except (HTTPError, OSError, ValueError) as error:
            raise Unavailable(limits.explain(error)) from error

    def _manager(self, url: str) -> urllib3.PoolManager:
        """Go through a proxy where the system has one; that is told by the usual variables."""
        parts = urlsplit(url)
        proxy = urllib.request.getproxies().get(parts.scheme)
        if proxy is None or urllib.request.proxy_bypass(parts.hostname or ""):
            manager = urllib3.PoolManager(ssl_context=self._tls)
        else:
            manager = urllib3.ProxyManager(proxy, ssl_context=self._tls)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def _shut_down(self) -> None:
        for handle in list(self._open):
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def _forget(self) -> None:
        while self._open:
            self._open.pop().close()


def _recording_pools(
    record: Callable[[socket.socket], None],
) -> dict[str, type[HTTPConnectionPool]]:
    """Connection pools that hand out a second handle of each connection, to shut it down by."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            record(connection.dup())
            return connection

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            record(connection.dup())  # before the handshake, which may be slow as well
            return connection

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
