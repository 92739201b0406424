"""Connect, say so, and copy both ways: this runs on the far host, alone.

For any Python 3. Arguments: the kind of socket and its address, each in base16. Each direction
ends by itself; it all ends when nobody is there any more to copy for.
"""

import base64
import contextlib
import errno
import os
import select
import socket
import sys

SIZE = 1 << 16


def connected(kind: str, *address: str) -> socket.socket:
    """Return a connected socket."""
    if kind == "tcp":
        sock = socket.create_connection((address[0], int(address[1])))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address[0])
        return sock
    sock = socket.socket(socket.AF_VSOCK)
    sock.connect((int(address[0]), int(address[1])))
    return sock


def close_output() -> None:
    """End what we say: sshd tells the other side when both of these are closed."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def copy(sock: socket.socket) -> None:
    """Copy standard input to the socket, and the socket to standard output."""
    up, down = b"", b""
    reading, receiving = True, True
    sock.setblocking(False)
    os.set_blocking(1, False)
    while reading or receiving or up or down:
        wanted = {}
        if receiving or down:
            wanted[1] = select.POLLOUT if down else 0  # Its end is noticed all the same.
        if reading and not up:
            wanted[0] = select.POLLIN
        events = (select.POLLOUT if up else 0) | (select.POLLIN if receiving and not down else 0)
        if events:
            wanted[sock.fileno()] = events
        poller = select.poll()
        for descriptor, mask in wanted.items():
            poller.register(descriptor, mask)
        ready = dict(poller.poll())
        if ready.get(1, 0) & (select.POLLERR | select.POLLHUP):
            receiving, down = False, b""  # Nobody reads it; what came before that is still sent.
            close_output()
            continue
        if 0 in ready:
            up = os.read(0, SIZE)
            if not up:
                reading = False
                sock.shutdown(socket.SHUT_WR)
        if receiving and not down and ready.get(sock.fileno(), 0) & ~select.POLLOUT:
            down = sock.recv(SIZE)
            if not down:
                receiving = False
                close_output()
        if up and ready.get(sock.fileno(), 0) & ~select.POLLIN:
            up = up[sock.send(up) :]
        if down and ready.get(1, 0) & select.POLLOUT:
            down = down[os.write(1, down) :]


def main() -> None:
    """Do it all; how a connection failed is said by errno's name."""
    words = [os.fsdecode(base64.b16decode(word)) for word in sys.argv[2:]]
    try:
        sock = connected(*words)
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0) or error.strerror or str(error)
        sys.exit("vmconnect: " + reason)
    os.write(1, b"vmconnect: connected\n")
    with contextlib.suppress(OSError):  # One of the two sides has gone.
        copy(sock)


if __name__ == "__main__":
    main()
