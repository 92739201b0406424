"""The clients that `bench/peers.py` and `bench/latency.py` run, each in a process of its own.

``CLIENT ADDRESS FORMAT PICTURE`` connects to a UNIX socket, keeps asking for changes until the
server hangs up, writes the screen's red, green, blue bytes to the file PICTURE and prints a line
of JSON: see `bench.clients.meter.Meter.report`. FORMAT is the PIXEL_FORMAT of what will come, in
hexadecimal; the server gives the same as its own, for clients that take what there is.
"""
