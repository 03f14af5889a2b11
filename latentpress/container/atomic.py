"""`write_file`, `write_path`: a file on disk is whole or not there."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from latentpress.errors import InputError


def write_file(path: str | os.PathLike[str], blob: bytes | memoryview, *, overwrite: bool = False) -> None:
    """Put `blob` at `path`, whole or not at all: a temporary file in the same folder, fsync, rename.

    Raises  InputError if there is a file already (unless overwrite) or the disk refuses; what was there stays, and no temporary is left
    """
    with write_path(path, overwrite=overwrite) as (temporary, mode):
        with open(temporary, "wb", buffering=0) as file:
            _fill(file.fileno(), blob, mode)


@contextmanager
def write_path(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[tuple[str, int | None]]:
    """For writers that want a name: (temporary name in the same folder, permission bits of the file there was); what the block
    leaves under that name, where an empty file waits for it, becomes `path`. Raises as `write_file`.
    """
    if "\0" in os.fspath(path):
        raise InputError(f"{os.fspath(path)!r} cannot be written: no name has a zero byte")
    final = os.path.realpath(path)  # of a link, the file behind it is replaced
    mode = _mode_to_keep(final, overwrite=overwrite)
    temporary = os.path.join(os.path.dirname(final), f".lpz-{secrets.token_hex(8)}.tmp")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            yield temporary, mode
            _move(temporary, final, overwrite=overwrite)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
    except FileExistsError:
        raise _exists(final) from None
    except OSError as error:
        raise InputError(f"{final!r} was not written: {error.strerror or error}") from error
    _sync_folder(os.path.dirname(final))


def _exists(path: str) -> InputError:
    return InputError(f"{path!r} exists: choose another name, or allow overwriting")


def _mode_to_keep(path: str, *, overwrite: bool) -> int | None:
    """Permission bits of the file to be replaced, None if there is none."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path!r} cannot be written: {error.strerror or error}") from error
    if not stat.S_ISREG(mode):  # a rename would replace a device by a file
        raise InputError(f"{path!r} is a folder or a device: choose another name")
    if not overwrite:
        raise _exists(path)
    return stat.S_IMODE(mode)


def _fill(handle: int, blob: bytes | memoryview, mode: int | None) -> None:
    if mode is not None and os.chmod in os.supports_fd:
        os.chmod(handle, mode)
    rest = memoryview(blob).cast("B")
    while rest:
        rest = rest[os.write(handle, rest) :]
    os.fsync(handle)


def _move(temporary: str, final: str, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, final)
        return
    try:
        os.link(temporary, final)  # fails if somebody made the file meanwhile; a rename would replace it
    except FileExistsError:
        raise
    except (OSError, NotImplementedError, AttributeError):  # file systems without hard links
        if os.path.lexists(final):
            raise FileExistsError(final) from None
        os.rename(temporary, final)


def _sync_folder(folder: str) -> None:
    """Makes the rename last; some systems cannot, and the file is whole either way."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
