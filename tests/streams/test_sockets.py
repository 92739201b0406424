"""What only a stream over the kernel's own sockets can meet with."""

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from vmconnect.streams.sockets import SocketStream

SECONDS = 60.0


def test_a_call_in_the_midst_of_another_thread_s_settimeout() -> None:
    near, far = socket.socketpair()
    stream = SocketStream(near, "far")
    with far, ThreadPoolExecutor(2) as pool:
        # settimeout(None) tells Python first; until it tells the system, this is how things are.
        os.set_blocking(near.fileno(), False)
        received = pool.submit(stream.recv, 5)
        threading.Timer(0.05, far.sendall, (b"hello",)).start()
        assert received.result(SECONDS) == b"hello"

        size = 0
        while True:  # There is no more room.
            try:
                size += near.send(bytes(65536))
            except BlockingIOError:
                break
        sent = pool.submit(stream.send, b"more")
        far.settimeout(SECONDS)
        while size:
            size -= len(far.recv(size))
        assert sent.result(SECONDS) == 4
        assert far.recv(9) == b"more"
    stream.close()
