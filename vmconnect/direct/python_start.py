"""What a guest's Python is started with, on its command line: it reads the rest.

Any Python from 3.4 on runs it. Of the standard input exactly what is ours is read: what follows is
for the program that is started.
"""

from __future__ import annotations

__all__ = ["reading_call", "reading_script"]

_READ = """\
    import os, sys
    data = b""
    while len(data) < @SIZE@:
        more = os.read(0, @SIZE@ - len(data))
        if not more:
            sys.exit(255)
        data += more
"""

# The script becomes what __main__ is, with nothing of ours in it.
_SCRIPT = """\
def start():
@READ@
    del globals()["start"]
    name = sys.argv[0] = sys.argv.pop(1)
    return compile(data, name, "exec")
exec(start())
"""

# The result alone is on the standard output: what the function prints goes to standard error.
_CALL = """\
def start():
@READ@
    del globals()["start"]
    import __future__, importlib, json, linecache, traceback
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        call = json.loads(data.decode())
        source, name = call["source"], call["file"]
        linecache.cache[name] = len(source), None, source.splitlines(True), name
        for bound, module in call["imports"].items():
            globals()[bound] = importlib.import_module(module)
        # What annotations name may be nothing that is known here.
        later = getattr(__future__, "annotations", None)
        flags = later.compiler_flag if later else 0
        exec(compile(source, name, "exec", flags), globals())
        answer = json.dumps(
            {"result": globals()[call["name"]](*call["args"], **call["kwargs"])}
        )
    except BaseException:
        kind, error, trace = sys.exc_info()
        text = "".join(traceback.format_exception(kind, error, trace.tb_next))
        last = traceback.format_exception_only(kind, error)[-1].strip()
        answer = json.dumps({"error": kind.__name__, "message": last, "traceback": text})
    sys.stdout.flush()
    with os.fdopen(out, "wb") as file:
        file.write(answer.encode())
start()
"""


def reading_script(size: int) -> str:
    """Return the program that reads a script of so many bytes and becomes it."""
    return _reading(size, _SCRIPT)


def reading_call(size: int) -> str:
    """Return the program that reads what to call, so many bytes of JSON, and answers in JSON."""
    return _reading(size, _CALL)


def _reading(size: int, program: str) -> str:
    return program.replace("@READ@\n", _READ).replace("@SIZE@", str(size))
