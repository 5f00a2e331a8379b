"""Small files written so that a reader never sees half of one, and logs kept within a size.

State, ports and secrets of the stack all go through here.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path

from routekeel.infra.local.errors import StackError

LOG_BYTES_MAX = 10 * 1024 * 1024
FREE_BYTES_MIN = 512 * 1024 * 1024
PASSWORD_BYTES = 24
TAIL_BYTES_MAX = 64 * 1024


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write the file whole or not at all; `mode` holds from its first byte on."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def prepare_folder(path: Path) -> None:
    """Make the folder, and check that it can be written and has room. Raises StackError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
        free = shutil.disk_usage(path).free
    except OSError as error:
        raise from_os_error(error, path) from error
    if free < FREE_BYTES_MIN:
        raise StackError(
            f"The disk of {path} has {free / 2**20:.0f} MiB left; "
            f"the stack needs {FREE_BYTES_MIN / 2**20:.0f} MiB to start.",
            "Free some space, or choose another state directory.",
        )


def from_os_error(error: OSError, path: Path) -> StackError:
    """The StackError that explains an OSError met in the state directory."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StackError(f"No space left writing {path}.", "Free some space and start again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StackError(
            f"{path} cannot be written: {error.strerror}.",
            "Choose a state directory that you own.",
        )
    return StackError(f"{path}: {error.strerror or error}.", "Choose another state directory.")


def password_in(folder: Path, name: str) -> str:
    """The secret of that name, made once. The folder is 0700, the file 0600."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    path = folder / name
    if path.exists():
        stored = path.read_text("utf-8").strip()
        if stored:
            return stored
    made = secrets.token_urlsafe(PASSWORD_BYTES)
    write_atomically(path, made + "\n", mode=0o600)
    return made


def rotate(log: Path) -> None:
    """Move an oversized log aside; one older generation is kept."""
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))


def tail(logs: list[Path], lines: int = 12) -> str:
    """The last lines of those logs that have any, joined; '' when none has."""
    parts: list[str] = []
    for log in logs:
        try:
            with log.open("rb") as stream:
                stream.seek(0, os.SEEK_END)
                stream.seek(max(0, stream.tell() - TAIL_BYTES_MAX))
                text = stream.read().decode("utf-8", errors="replace")
        except OSError:
            continue
        parts.extend(text.rstrip().splitlines()[-lines:])
    return "\n".join(parts)
