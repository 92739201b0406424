"""Streams through ssh: the user's own OpenSSH, so that its config, agent and known hosts count.

`SshHost`
    another host, as ssh knows it
`ThroughSsh`, `through`
    an endpoint of another host, and how one is made of any endpoint
`client`
    the ssh program: its command line, its settings for a host, its errors in our words
`master`
    one connection to each host, which all streams there share (ssh's ControlMaster)
`mux`
    what is said to a master (PROTOCOL.mux)
`relay`
    what runs at the far end where ssh alone cannot connect: vsock, and UNIX sockets by older ssh
`stream`
    the stream
"""
