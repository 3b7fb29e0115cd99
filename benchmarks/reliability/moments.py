"""The moments of a process at which something on disk is half done, or a step is.

The code that runs is untouched: the moments are seen from Python's audit events (files opened, renamed, removed), from
wrapped functions of the system and of sqlite3, safetensors and torch, and from torch's own hooks.
"""

import builtins
import io
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Act = Callable[[], None]


class Listener(Protocol):
    """Is told of each moment before what it names happens, or after it where the name says so."""

    def __call__(self, name: str, half: Act = ...) -> None:
        """A moment; `half` does half of what is about to be done."""
        ...


def idle() -> None:
    """Half of nothing."""


@dataclass
class Recorder:
    """Writes the name of each moment to a file, a line each."""

    path: Path

    def __call__(self, name: str, half: Act = idle) -> None:
        """Takes a moment down."""
        del half
        with _plain_open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{name}\n")


@dataclass
class At:
    """Acts once, at the `count`-th moment of a name, after half of what is about to be done."""

    name: str
    count: int
    act: Act
    seen: int = 0

    def __call__(self, name: str, half: Act = idle) -> None:
        """Counts a moment, and acts when it is the one."""
        if name != self.name:
            return
        self.seen += 1
        if self.seen == self.count:
            half()
            self.act()


def kill_self() -> None:
    """SIGKILL, from which nothing can be saved."""
    os.kill(os.getpid(), signal.SIGKILL)


_NUMBERS = re.compile(r"[0-9a-f]{6,}|building-\w+|tmp\w{8}|(?<=\.)[a-z0-9_]{8}$|[0-9]+")
_plain_open = io.open
_EVENTS = {"open": 0, "os.rename": 2, "os.remove": 1, "os.mkdir": 2, "os.rmdir": 1, "shutil.rmtree": 0}
"""Audit events, and where among their arguments the open folder stands that a path may be relative to; 0: nowhere."""


@dataclass
class Watch:
    """Hears of every moment below some folders, in this process alone and until it ends."""

    folders: Sequence[Path]
    listen: Listener
    busy: bool = field(default=False)

    def install(self) -> None:
        """Wraps what has to be wrapped; remask must have been imported."""
        sys.addaudithook(self._audit)
        self._wrap_files()
        self._wrap_registry()
        self._wrap_tensors()
        self._hook_torch()

    def tell(self, name: str, half: Act = idle) -> None:
        """Passes a moment on, unless it comes from the listener itself."""
        if self.busy:
            return
        self.busy = True
        try:
            self.listen(name, half)
        finally:
            self.busy = False

    def _place(self, path: Any) -> str | None:
        """A path below the folders in short, numbers and hashes replaced; None for any other."""
        if not isinstance(path, str | os.PathLike | bytes):
            return None
        text = os.path.abspath(os.fsdecode(path))
        for folder in map(str, self.folders):
            if text.startswith(folder):
                parts = text[len(folder) :].strip("/").split("/")
                if parts[0] == "runs" and len(parts) > 1 and "_" in parts[1]:
                    parts = ["RUN", *parts[2:]]
                return "/".join(_NUMBERS.sub("#", part) for part in parts[-3:])
        return None

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if event in _EVENTS:
            place = self._place(_whole(arguments[0], arguments[_EVENTS[event]] if _EVENTS[event] else -1))
            if place is not None:
                self.tell(f"before {event.rpartition('.')[2]} {place}")

    def _wrap_files(self) -> None:
        opened, write, sync = io.open, os.write, os.fsync

        def open_and_tell(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            stream = opened(file, mode, *rest, **options)
            place = self._place(file) if set(mode) & set("wax+") else None
            if place is not None:
                self.tell(f"after open {place}")
            return stream

        def write_and_tell(descriptor: int, data: Any) -> int:
            place = self._place(_path_of(descriptor))
            if place is not None:
                self.tell(f"half of write {place}", lambda: _ignore(write(descriptor, data[: len(data) // 2])))
            return write(descriptor, data)

        def sync_and_tell(descriptor: int) -> None:
            place = self._place(_path_of(descriptor))
            if place is not None:
                self.tell(f"before sync {place}")
            sync(descriptor)

        io.open = builtins.open = open_and_tell
        os.write, os.fsync = write_and_tell, sync_and_tell
        os.replace, os.rename = self._telling_after(os.replace), self._telling_after(os.rename)

    def _telling_after(self, move: Callable[..., None]) -> Callable[..., None]:
        def moved(source: Any, target: Any, **options: Any) -> None:
            move(source, target, **options)
            place = self._place(target)
            if place is not None:
                self.tell(f"after rename {place}")

        return moved

    def _wrap_registry(self) -> None:
        connect, tell = sqlite3.connect, self.tell

        class Told(sqlite3.Connection):
            def execute(self, statement: str, *rest: Any) -> Any:
                verb = statement.split()[0]
                if verb in ("PRAGMA", "SELECT"):
                    return super().execute(statement, *rest)
                tell(f"before {verb} registry")
                done = super().execute(statement, *rest)
                tell(f"after {verb} registry")
                return done

        def connect_told(*arguments: Any, **options: Any) -> sqlite3.Connection:
            return connect(*arguments, **{"factory": Told, **options})

        sqlite3.connect = connect_told

    def _wrap_tensors(self) -> None:
        from safetensors import torch as tensors

        save = tensors.save_file

        def save_and_tell(values: Any, path: Any, *rest: Any, **options: Any) -> None:
            place = self._place(path)
            self.tell(f"before tensors {place}")

            def half() -> None:
                save(values, path, *rest, **options)
                os.truncate(path, os.path.getsize(path) // 2)

            self.tell(f"half of tensors {place}", half)
            save(values, path, *rest, **options)
            self.tell(f"after tensors {place}")

        replace_everywhere(save, save_and_tell)

    def _hook_torch(self) -> None:
        from torch import Tensor, is_grad_enabled
        from torch.nn.modules.module import register_module_forward_pre_hook
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        register_optimizer_step_pre_hook(lambda *_: self.tell("before optimizer step"))
        register_optimizer_step_post_hook(lambda *_: self.tell("after optimizer step"))
        backward = Tensor.backward

        def backward_and_tell(tensor: Any, *rest: Any, **options: Any) -> None:
            self.tell("before backward")
            backward(tensor, *rest, **options)

        Tensor.backward = backward_and_tell  # pyright: ignore[reportAttributeAccessIssue]

        def forward(module: Any, given: Any) -> None:
            del given
            if type(module).__name__ == "Transformer":
                self.tell("before forward" if is_grad_enabled() else "before forward without gradient")

        register_module_forward_pre_hook(forward)


def replace_everywhere(old: Any, new: Any) -> None:
    """Puts `new` in the place of `old` in every module of remask's, safetensors' and this one's that holds it."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("remask", "safetensors"):
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)


def _whole(path: Any, folder: Any) -> Any:
    """A path that may be relative to an open folder."""
    if isinstance(folder, int) and folder >= 0 and isinstance(path, str):
        return f"{_path_of(folder)}/{path}"
    return path


def _path_of(descriptor: int) -> str | None:
    with suppress(OSError):
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return None


def _ignore(count: int) -> None:
    del count
