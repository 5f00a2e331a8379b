"""A small disk that can be full: a file system in memory, cut down to what is in use and back.

A write to it then fails as a full disk's does (ENOSPC), whoever writes. Mounting needs root; where it is
not permitted, `mount` says why and the faults that need it are left out.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

TRIES = 20
MAPPED_BYTES = 64 * 1024


class NotMounted(Exception):
    """This machine does not let us mount; the reason is the message."""


class SmallDisk:
    """A tmpfs at `folder`. Raises NotMounted where it cannot be."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        self.folder = folder
        self._size = f"{size_mib}m"
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() != 0:
            raise NotMounted("mounting a file system needs root")
        done = _mount("-t", "tmpfs", "-o", f"size={self._size},mode=700", "chaos", str(folder))
        if done.returncode != 0:
            raise NotMounted(f"mounting is not permitted: {done.stderr.strip()}")
        self._mounted = True

    def fill(self) -> None:
        """Leave no room: the size becomes what is used."""
        for _ in range(TRIES):
            stat = os.statvfs(self.folder)
            used = max(1, stat.f_blocks - stat.f_bfree) * stat.f_frsize
            # Refused where more has been written meanwhile.
            if _mount("-o", f"remount,size={used}", str(self.folder)).returncode == 0:
                return
        raise RuntimeError(f"{self.folder} could not be filled")

    def free(self) -> None:
        """Give the room back."""
        done = _mount("-o", f"remount,size={self._size}", str(self.folder))
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        """Unmount; what is on it is gone. Nothing may use it any more."""
        if self._mounted:
            self._mounted = False
            subprocess.run(["umount", str(self.folder)], check=True, capture_output=True)


def keep_maps(folder: Path) -> None:
    """Give Kafka's indexes their first pages, which hold what is written before the disk has room again.

    It writes them through memory maps, where a page that is not to be had is no error but a signal, and
    what a broker does then between a record and its index is not what is tried here.
    """
    for pattern in ("**/*.index", "**/*.timeindex"):
        for path in folder.glob(pattern):
            try:
                with path.open("r+b") as file:
                    size = min(MAPPED_BYTES, os.fstat(file.fileno()).st_size)
                    if size:
                        os.posix_fallocate(file.fileno(), 0, size)
            except FileNotFoundError:
                continue  # its topic has just been deleted


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["mount", *arguments], capture_output=True, text=True, check=False, timeout=30
        )
    except OSError as error:
        raise NotMounted(f"there is no mount command: {error}") from error
