"""Forwarding: ports and sockets on this side of a guest and on its side, joined over SSH.

`Forward`
    one of them, listening; made by `vmconnect.direct.Guest.forward`
`ForwardSpec`, `ForwardKind`
    what is forwarded where to, and the parser of ssh's way to write it
`SocksNegotiation`
    the server's side of SOCKS 4, 4a and 5, without I/O
`Connection`, `ForwardChannel`
    one connection that is forwarded, and its channel in SSH
`Loop`
    the one thread in which all of a forward's connections are served
"""

from vmconnect.direct.forward.forward import Forward
from vmconnect.direct.forward.spec import ForwardKind, ForwardSpec
from vmconnect.direct.forward.tally import Tally

__all__ = ["Forward", "ForwardKind", "ForwardSpec", "Tally"]
