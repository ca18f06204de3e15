"""New processes that need not import TensorFlow: each is forked from one that has imported it and done nothing else.

A new Python spends 7 of its seconds on the imports of TensorFlow and MLflow, the same in each of the many processes
that the tests start. The process forked here knows nothing of axtrain, has run no operation, and starts as a real one
does: its arguments, folder, environment and streams are its caller's. Tests of the imports themselves (their order,
what they load, what they say) start real processes. Where there is no safe `fork`, all processes are real ones.
"""

import atexit
import functools
import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

LENGTH = 8  # bytes that say how long the request is


def ask(address, request, streams):
    """Has the request's code run with these files as its streams; the exit status as `subprocess` gives it."""
    content = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [len(content).to_bytes(LENGTH, "big")], streams)
        connection.sendall(content)
        return int(connection.makefile().read() or -signal.SIGKILL)


def serve(address):
    """Forks a process for each request, until standard input ends."""
    import keras  # noqa: F401
    import matplotlib
    import mlflow.pyfunc  # noqa: F401
    import sklearn.datasets
    import sklearn.model_selection  # noqa: F401
    import tensorflow  # noqa: F401

    matplotlib.use("Agg")
    gc.freeze()  # what is here already is nothing that a process could free
    assert not any(name.startswith("axtrain") for name in sys.modules)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([listening, sys.stdin], [], [], 1.0)
        reap()
        if sys.stdin in readable:  # the tests' process has ended, in whatever way
            return shutil.rmtree(os.path.dirname(address))
        if listening in readable:
            connection = listening.accept()[0]
            if os.fork() == 0:
                listening.close()
                attend(connection)
            connection.close()


def reap():
    """Collects the processes that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def attend(connection):
    """The one process becomes what was asked for; the other waits for it and reports its end."""
    size, streams, _, _ = socket.recv_fds(connection, LENGTH, 3)
    request = json.loads(connection.makefile("rb").read(int.from_bytes(size, "big")))
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(str(status).encode())
        os._exit(0)
    import numpy

    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    sys.path[0] = request["cwd"]
    numpy.random.seed()
    become(request["code"])


def become(code):
    """Runs it as `python -c` does, and ends without taking TensorFlow down piece by piece, which takes seconds."""
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


ADDRESS = "AXTRAIN_TESTS_FORK"
COMMAND = f"""#!{sys.executable} -IS
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fresh import ask
code = "import sys; from axtrain.__main__ import main; sys.exit(main())"
request = {{"code": code, "arguments": ["axtrain", *sys.argv[1:]], "cwd": os.getcwd(), "environment": dict(os.environ)}}
status = ask(os.environ["{ADDRESS}"], request, [0, 1, 2])
sys.exit(status if status >= 0 else 128 - status)
"""


@functools.cache
def server():
    """The address of this test process's server, and the folder with the command `axtrain` that asks it."""
    folder = tempfile.mkdtemp(prefix="axtrain_tests_")
    address = os.path.join(folder, "socket")
    command = [sys.executable, __file__, address]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}  # or its thread would begin with the import
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment, **pipes)

    def end():
        process.stdin.close()
        process.wait()
        process.stdout.close()

    atexit.register(end)
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError("The process that others are forked from did not start")
    script = Path(folder, "axtrain")
    script.write_text(COMMAND)
    script.chmod(0o755)
    return address, folder


def run(code, *arguments, cwd=None, env=None, input="", commands=False):
    """`subprocess.run([python, "-c", code, *arguments])` with its output captured as text, from a fork.

    With `commands`, a shell started by the code finds the command `axtrain` and runs it in a fork, too.
    """
    environment = dict(os.environ if env is None else env)
    command = [str(argument) for argument in arguments]
    if not sys.platform.startswith("linux"):
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
        command = [sys.executable, "-c", code, *command]
        return subprocess.run(command, cwd=cwd, env=environment, input=input, capture_output=True, text=True)
    address, folder = server()
    if commands:
        environment |= {ADDRESS: address, "PATH": os.pathsep.join([folder, environment.get("PATH", "")])}
    request = {"code": code, "arguments": ["-c", *command], "cwd": str(cwd or Path.cwd()), "environment": environment}
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(input.encode())
        given.seek(0)
        status = ask(address, request, [stream.fileno() for stream in (given, out, err)])
        told = []
        for stream in (out, err):
            stream.seek(0)
            told.append(stream.read().decode())
    return subprocess.CompletedProcess(command, status, *told)


if __name__ == "__main__":
    serve(sys.argv[1])
