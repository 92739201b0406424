"""The fuzz room: bytes by chance against all that reads what a stranger says.

Those for the RFB engine get real headers round them.

`wrap`
    from bytes by chance to what a server could send: one function an encoding
`room`
    an engine past its handshake that is put back to its beginning for every execution
`oracle`
    what must hold of every execution, and of two that saw the same bytes
`guests`
    the parsers of what guests, hypervisors and clients say, and a copy's receiver
`targets`
    a name, a function of bytes; all that can be fuzzed
`seeds`, `guest_seeds`
    what the fuzzer begins with
`campaign`
    one target after the other, counted

``python -m fuzz TARGET`` fuzzes one. Nothing here but `__main__` needs atheris: the
finds are run again by the tests.
"""
