"""The Python of a named session: it reads the names of calls, and does what they say, in itself."""

import ast
import os
import signal
import stat
import sys
import traceback


def execute(path: str, names: "dict[str, object]") -> int:
    with open(path, "rb") as file:
        source = file.read()
    try:
        tree = ast.parse(source, "<session>")
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            tree.body.pop()
        exec(compile(tree, "<session>", "exec"), names)
        if isinstance(last, ast.Expr):
            # As at its prompt, a value that is left is shown.
            sys.displayhook(eval(compile(ast.Expression(last.value), "<session>", "eval"), names))
        return 0
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 255
        sys.stderr.write("%s\n" % (error.code,))
        return 1
    except KeyboardInterrupt:
        traceback.print_exc(limit=-1)
        return 130
    except BaseException as error:
        # What is above it is ours.
        shown = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, shown)
        return 1


def is_fifo(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def serve(call: str, names: "dict[str, object]") -> None:
    source = call + "/in" if is_fifo(call + "/in") else os.devnull
    for number, path, flags in (
        (0, source, os.O_RDONLY),
        (1, call + "/out", os.O_WRONLY),
        (2, call + "/err", os.O_WRONLY),
    ):
        descriptor = os.open(path, flags)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    os.environ["VMCONNECT_RUN"] = "call.%s." % os.path.basename(call)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = execute(call + "/text", names)
    except KeyboardInterrupt:
        code = 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    with open(call + "/status", "w") as file:
        file.write("%d\n" % code)
    for number in range(3):
        descriptor = os.open(os.devnull, os.O_RDWR)
        os.dup2(descriptor, number)
        os.close(descriptor)


def main(session: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = os.open(session + "/request", os.O_RDWR)
    with open(session + "/pid", "w") as file:
        file.write("%d\n" % os.getpid())
    names: dict[str, object] = {"__name__": "__main__", "__builtins__": __builtins__}
    sys.argv = [""]
    line = b""
    while True:
        byte = os.read(requests, 1)
        if byte != b"\n":
            line += byte
            continue
        call, line = os.path.join(session, "calls", line.decode("ascii", "replace")), b""
        if is_fifo(call + "/out"):
            open(call + "/started", "w").close()
            serve(call, names)


main(sys.argv[1])
