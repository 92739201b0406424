"""Copying files and trees into guests, out of them, and from one to another.

`frames`
    what goes over the wire: an entry, its bytes, its end; the answers; the limits of it all
`pipe`
    frames over any two functions that read and write bytes
`ahead`
    a thread that reads what will be wanted next
`directory`
    one directory, held open: every name in it is one name, and no link is followed
`Sender`, `Receiver`
    a tree turned into frames, and frames into a tree; on either side, whatever lies between
`far_end`
    the program that a guest's own Python runs: one of the two, and a pipe
`FarEnd`
    that program from here: started over SSH, then talked to over vsock where that can be
`sftp`, `sftp_source`
    a directory of a guest that has no Python
`Copier`
    which of the ways it is, and the copy itself
`Copied`
    what was copied, by which way, and what could not be

**One stream, two ends.** A copy is a walk through a tree. The sender turns it into frames, one
after the other, and waits for nobody: that is what makes ten thousand small files quick. It asks
the receiver only where an answer saves more than it costs: before a large file (how much of it is
there from a copy that was cut?), and with ``sync`` before the files of a directory (which of these
have you not?).

**Whoever sends may lie.** A name is one component, never a path; the receiver walks by descriptors
of directories, opened without following links. So neither ``..`` nor ``/`` nor a link that was put
in place a moment before leads out of where the copy was to go. What a source is called at the
destination is what was asked for, not what the far end says. Sizes and lengths are bounded before
anything is allocated.

**Never half a file.** A file arrives under a name of its own (``.NAME.XXXXXXXX.part``), is compared
by its CRC-32 and its size with what was read at the other end, gets its mode and its times, and
then its name, by one rename. The part of a large file outlives a cut; its name tells of which
version of the source it is, and it is gone on with only if its bytes are the source's.

**The way.** The guest's Python is started by SSH, and its program handed to it. It listens on a
vsock port of its own choice, tells it over SSH, and takes the first connection that shows the token
that it was given over SSH; it proves itself by another. We dial, as hybrid vsock sockets and our
own device let everybody do who can reach the guest's SSH server; and a guest that may dial out
would have to be told where to. Where that fails the frames go over the SSH channel itself. A guest
with no Python is served by SFTP: the same sender and receiver run here, on its directories.
"""

from vmconnect.direct.copy.copied import Copied, Failure
from vmconnect.direct.copy.copier import WAYS, Copier, Options, Place
from vmconnect.direct.copy.process import PortOpener

__all__ = ["WAYS", "Copied", "Copier", "Failure", "Options", "Place", "PortOpener"]
