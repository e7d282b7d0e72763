"""A Python that has imported torch and MMDetection already: each script it runs is a fork of one process.

What a fresh process imports before it trains for a moment takes seconds. ``WarmPython.command`` is an executable that
stands for ``sys.executable`` in the command lines of tests, and in those that the started processes put together
themselves (rows, torchrun). It hands its arguments, environment, folder and open files to a server, whose fork runs
the script as ``__main__``; signals and the exit status pass through, and whoever kills the executable kills the script.
The server has built nothing and computed nothing, and of this package it has imported ``__init__`` alone.

Whatever depends on a fresh interpreter (options other than ``-u``, ``-c``, another number of threads) gets one.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: Packages of others, behind the package itself, which puts its stand-in for mmcv's operators in place; the parts of
#: the package are left to the script.
PRELOAD = (
    *('mmdet_gfl', 'torch._dynamo', 'torch.distributed.run', 'mmengine.runner', 'mmdet.apis', 'mmdet.datasets'),
    *('mmdet.engine', 'mmdet.evaluation', 'mmdet.models', 'mmdet.visualization', 'matplotlib.pyplot'),
)
#: Above the descriptors that a script is given.
HIGH = 512
CLIENT = """#!{python} -IS
import os, signal, socket, sys
arguments = sys.argv[1:]
script = arguments[1:] if arguments[:1] == ['-u'] else arguments
fresh = not script or (script[0].startswith('-') and script[0] != '-m') or os.environ.get('OMP_NUM_THREADS') != '1'
if fresh:
    os.execv({python!r}, [{python!r}, *arguments])
import json
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
files = [int(name) for name in os.listdir('/proc/self/fd')]
files = [file for file in files if os.path.exists(f'/proc/self/fd/{{file}}') and file != server.fileno()]
request = dict(script=script, unbuffered=script is not arguments, folder=os.getcwd(), files=files)
request = json.dumps(dict(request, environ=dict(os.environ))).encode()
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, _: server.sendall(bytes([number])))
socket.send_fds(server, [len(request).to_bytes(8, 'big')], files)
server.sendall(request)
answer = server.recv(2)
if len(answer) < 2:
    sys.exit('the server of tests/warm_python.py has ended')
kind, code = answer
if kind:
    signal.signal(code, signal.SIG_DFL)
    os.kill(os.getpid(), code)
os._exit(code)
"""


def leave_configs_unformatted() -> None:
    """Have MMEngine write configs without yapf, which takes longer than all else that a test does with them."""
    from mmengine.config import config

    def parsed(text: str, **_: object) -> tuple[str, bool]:
        ast.parse(text)  # as yapf does first
        return text, True

    config.FormatCode = parsed


class WarmPython:
    """The server and the executable, in a temporary folder, whose path is short enough for a socket."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        address, self.command = (Path(self.folder.name) / name for name in ('socket', 'python'))
        self.command.write_text(CLIENT.format(python=sys.executable, address=str(address)))
        self.command.chmod(0o755)
        env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1])]))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(address))
        listener.listen(64)
        command = [sys.executable, __file__, str(listener.fileno()), str(self.command)]
        files = [listener.fileno()]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, env=env, pass_fds=files, start_new_session=True)
        listener.close()

    def close(self) -> None:
        """End the server and what it runs."""
        self.server.communicate()
        self.folder.cleanup()


@dataclass
class Request:
    """A script to run, as an executable asks for it."""

    script: list[str]
    unbuffered: bool
    folder: str
    environ: dict[str, str]
    files: list[int]
    received: list[int]

    @classmethod
    def read(cls, client: socket.socket) -> Request | None:
        """From an executable that has just connected; None where it was killed before it has said all."""
        size, received, _, _ = socket.recv_fds(client, 8, 64)
        content, part = b'', size
        while part and (missing := int.from_bytes(size, 'big') - len(content)):
            part = client.recv(missing)  # no more: a signal may follow
            content += part
        if part:
            return cls(**json.loads(content), received=received)
        for file in received:
            os.close(file)
        return None

    def run(self, python: str) -> None:
        """Become the process of the script; what it raises is what ends this process."""
        import numpy as np

        files = [os.dup2(file, HIGH + index) for index, file in enumerate(self.received)]
        os.closerange(0, HIGH)
        for file, number in zip(files, self.files, strict=True):
            os.dup2(file, number)
            os.close(file)
        os.setsid()
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environ)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=self.unbuffered or stream is sys.stderr, write_through=self.unbuffered)
        random.seed()
        np.random.seed()
        paths = os.environ.get('PYTHONPATH', '').split(os.pathsep)
        sys.path[:] = [*(path for path in paths if path and path not in sys.path), *sys.path[1:]]
        sys.executable = python
        sys.orig_argv = [python, *self.script]
        if self.script[0] == '-m':
            sys.argv = self.script[1:]
            sys.path.insert(0, self.folder)
            runpy.run_module(self.script[1], run_name='__main__', alter_sys=True)
        else:
            sys.argv = self.script
            sys.path.insert(0, str(Path(self.script[0]).resolve().parent))
            runpy.run_path(self.script[0], run_name='__main__')


class Server:
    """Forks a process for each executable that connects, until the standard input ends."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.clients: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (0, self.woken, listener):
            self.selector.register(source, selectors.EVENT_READ)

    def serve(self) -> Request | None:
        """None at the end; in each fork, what it is to run."""
        while True:
            for key, _ in self.selector.select():
                if key.fd == 0:
                    for child in self.clients:
                        os.kill(child, signal.SIGKILL)
                    return None
                if key.fd == self.woken:
                    os.read(self.woken, 1024)
                    self.bury()
                elif key.fileobj is not self.listener:
                    self.signal(key.data)
                elif (request := self.fork()) is not None:
                    return request

    def fork(self) -> Request | None:
        """Start what an executable asks for; in the fork, return it."""
        client, _ = self.listener.accept()
        if (request := Request.read(client)) is None:
            client.close()
            return None
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for source in (self.selector, self.listener, client, *self.clients.values()):
                source.close()  # now: later, these numbers are files of the script
            return request
        for file in request.received:
            os.close(file)
        self.clients[child] = client
        self.selector.register(client, selectors.EVENT_READ, child)
        return None

    def signal(self, child: int) -> None:
        """Send a child the signals that its executable was sent; where that has been killed, the child is too."""
        if child not in self.clients:  # it has just ended
            return
        signals = self.clients[child].recv(64)
        if not signals:
            self.selector.unregister(self.clients[child])
        for number in signals or [signal.SIGKILL]:
            os.kill(child, number)

    def bury(self) -> None:
        """Tell the executables whose scripts have ended how they ended."""
        for child in list(self.clients):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                continue
            client = self.clients.pop(child)
            code = os.waitstatus_to_exitcode(status)
            if client in self.selector.get_map():
                self.selector.unregister(client)
                with contextlib.suppress(ConnectionError):  # killed in this moment
                    client.sendall(bytes([code < 0, abs(code)]))
            client.close()


if __name__ == '__main__':
    for name in PRELOAD:
        importlib.import_module(name)
    leave_configs_unformatted()
    gc.collect()
    gc.freeze()
    if (asked := Server(socket.socket(fileno=int(sys.argv[1]))).serve()) is not None:
        asked.run(sys.argv[2])
