"""Direct: commands and files inside guests, over any stream, with no network in the guest.

`Guest`
    the channel: run commands, copy files, come back after the guest's reset
`Login`
    who we are there: user, keys, password
`Result`
    what a command gave
`Shell`
    a shell on a terminal of its own: type, read, wait for what it writes
`Terminal`
    what that terminal is: its type, size and modes
`SshConnection`
    one SSH connection over one stream, paramiko's errors translated
"""

from vmconnect.direct.guest import Guest
from vmconnect.direct.login import Login
from vmconnect.direct.result import Result
from vmconnect.direct.shell import Shell
from vmconnect.direct.ssh import SshConnection
from vmconnect.direct.terminal import Terminal

__all__ = ["Guest", "Login", "Result", "Shell", "SshConnection", "Terminal"]
