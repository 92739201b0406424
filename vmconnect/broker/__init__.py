"""The broker: a process of the user's that keeps sessions warm, and its thin client.

`hand_over` (`client`)
    what a command does first: give its descriptors to the broker, and wait for the exit code;
    ``client.c`` is the same, compiled, and the `vmconnect` command where there was a compiler
`Order` (`order`)
    what a client asks for, as it goes over the socket; `wire` has the other messages
`start`
    a broker in the background, for the next command
`Claim`, `Broker`
    the one socket of the user's, and the loop that serves it
`Request`, `Standard` (`request`, `standard`)
    one command of one client, and its standard streams
`WarmSessions`, `SessionKey` (`warm`, `key`)
    sessions that stay open between commands, and which commands may use which
`Surroundings`, `LoadedCode` (`surroundings`, `code`)
    whether the client's words mean the same here, and whether this is still the installed code

Nothing is imported here, and next to nothing by `client`: it stands in for a start of Python's
that takes ten times as long. What a command does is no business of this room: the command line
gives the broker a function that does it (`vmconnect.cli.broker`).
"""
