"""One client connection: a thread that reads requests, one after the other, and sends their answers in order."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from typing import Final

from cluster.broker.api import PRODUCE, answer, check_prefix
from cluster.broker.errors import AddressError, ProtocolError
from cluster.broker.limits import MIB
from cluster.broker.segment import FileSlice
from cluster.broker.services import Services
from cluster.broker.wire import Part

logger = logging.getLogger("millrace.broker")

_PREFIX: Final = struct.Struct(">ihh")  # request length, type, version
_REQUEST_BYTES_MIN: Final = 8
_RECEIVE_BYTES: Final = (
    MIB  # memory for a request grows with what has come, not with what its length promises
)
_RECEIVE_S: Final = 1.0  # a blocked read returns this often to look at the clock


class Connection:
    """Serves one socket until the peer leaves, misbehaves, or `close` is called from outside."""

    def __init__(self, sock: socket.socket, services: Services) -> None:
        self._socket = sock
        self._services = services
        self._limits = services.limits
        self._client = ":".join(map(str, sock.getpeername()[:2]))
        self._client_host = str(sock.getpeername()[0])
        self._local_host = str(sock.getsockname()[0])
        _set_timeout(sock, socket.SO_RCVTIMEO, _RECEIVE_S)
        _set_timeout(sock, socket.SO_SNDTIMEO, services.limits.send_s_max)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.thread = threading.Thread(target=self._serve, name=f"broker-{self._client}", daemon=True)

    def close(self) -> None:
        """End the connection from another thread; its own thread closes the socket."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            logger.debug("Connection %s was closed already: %s.", self._client, error)

    def _serve(self) -> None:
        try:
            while (frame := self._read_frame()) is not None:
                self._send(answer(self._services, frame, self._client_host, self._local_host))
        except ProtocolError as error:
            logger.warning("Closed the connection of %s: %s", self._client, error)
        except BlockingIOError:
            logger.warning("Closed the connection of %s: it took no byte for too long.", self._client)
        except OSError as error:
            logger.debug("Connection %s ended: %s.", self._client, error)
        except Exception:
            logger.exception("Closed the connection of %s: the broker failed on its request.", self._client)
        finally:
            self._socket.close()

    def _read_frame(self) -> memoryview | None:
        """The next request without its length, or None when the peer has left or been idle for too long."""
        prefix = bytearray(_PREFIX.size)
        if not self._receive_first(prefix):
            return None
        ends_s = time.monotonic() + self._limits.frame_s_max
        self._receive(memoryview(prefix)[1:], ends_s)
        size_bytes, api_key, api_version = _PREFIX.unpack(prefix)
        self._check_size(size_bytes, api_key)
        check_prefix(api_key, api_version)
        frame = bytearray(min(size_bytes, _RECEIVE_BYTES))
        frame[:4] = prefix[4:]
        received = 4
        while received < size_bytes:
            if received == len(frame):
                frame.extend(bytes(min(size_bytes - received, len(frame))))
            with memoryview(frame) as view:
                self._receive(view[received:], ends_s)
            received = len(frame)
        return memoryview(frame)

    def _check_size(self, size_bytes: int, api_key: int) -> None:
        limits = self._limits
        most = limits.request_bytes_max if api_key == PRODUCE else limits.control_request_bytes_max
        if not _REQUEST_BYTES_MIN <= size_bytes <= most:
            raise ProtocolError(
                f"Expected a Kafka request of {_REQUEST_BYTES_MIN} to {most} bytes, got {size_bytes}."
            )

    def _receive_first(self, prefix: bytearray) -> bool:
        """Wait for the first byte of a request; False if the peer has left or been idle for too long."""
        ends_s = time.monotonic() + self._limits.connection_idle_s_max
        while not self._services.stopping.is_set():
            try:
                return self._socket.recv_into(prefix, 1) == 1
            except BlockingIOError:
                if time.monotonic() > ends_s:
                    logger.info(
                        "Closed the connection of %s: no request for %g s.",
                        self._client,
                        self._limits.connection_idle_s_max,
                    )
                    return False
        return False

    def _receive(self, target: memoryview, ends_s: float) -> None:
        """Fill `target` before `ends_s`."""
        while len(target):
            if time.monotonic() > ends_s:
                raise ProtocolError(
                    f"Expected a whole request within {self._limits.frame_s_max:g} s, got a part of it."
                )
            try:
                received = self._socket.recv_into(target)
            except BlockingIOError:
                continue
            if received == 0:
                raise ProtocolError(
                    f"Expected {len(target)} more bytes of a request, the peer closed the connection."
                )
            target = target[received:]

    def _send(self, parts: list[Part]) -> None:
        for index, part in enumerate(parts):
            more = index + 1 < len(parts)
            if isinstance(part, FileSlice):
                self._send_file(part)
            elif part:
                # MSG_MORE keeps the head of an answer in one packet with the records that follow.
                self._socket.sendall(part, socket.MSG_MORE if more else 0)

    def _send_file(self, part: FileSlice) -> None:
        position, left_bytes = part.position, part.size_bytes
        while left_bytes:
            sent = os.sendfile(self._socket.fileno(), part.segment.fd, position, left_bytes)
            if sent == 0:
                raise OSError(f"{part.segment.path} ended at byte {position}, {left_bytes} bytes early")
            position += sent
            left_bytes -= sent


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        AddressError: host and port cannot be listened on.
    """
    try:
        return socket.create_server((host, port), backlog=128)
    except (OSError, OverflowError) as error:
        raise AddressError(
            f"Cannot listen on {host}:{port}: {error}. Stop what uses the port, or choose another (0 takes a free one)."
        ) from error


def _set_timeout(sock: socket.socket, option: int, timeout_s: float) -> None:
    """A timeout in the kernel: Python's own would make the socket non-blocking, which sendfile does not wait for."""
    seconds = int(timeout_s)
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", seconds, int((timeout_s - seconds) * 1e6)))
