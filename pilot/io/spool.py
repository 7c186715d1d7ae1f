"""Contents by digest in a temporary file, so that memory holds only their digests and places."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from pilot.errors import UserError
from pilot.io.digest import sha256_bytes


class Spool(Mapping[str, bytes]):
    """Contents by sha256, each stored once, in a file without a name that the system removes when it is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._places, self._end = folder, dict[str, tuple[int, int]](), 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        except OSError as error:
            raise UserError(f"{folder}: cannot write here ({error.strerror}). Choose another folder.") from error

    def add(self, content: bytes | memoryview) -> str:
        """Store a content (a view is of single bytes) unless it is there; return its sha256.

        Raises:
            UserError: the disk is full or fails.
        """
        digest = sha256_bytes(content)
        if digest not in self._places:
            try:
                left = memoryview(content)
                while left:
                    left = left[os.pwrite(self._file.fileno(), left, self._end + len(content) - len(left)) :]
            except OSError as error:
                raise UserError(
                    f"{self.folder}: writing a temporary file failed ({error.strerror}). It takes as much space as "
                    "what it keeps of images or features. Free disk space, or choose another folder."
                ) from error
            self._places[digest] = self._end, len(content)
            self._end += len(content)
        return digest

    def __getitem__(self, digest: str) -> bytes:
        start, length = self._places[digest]
        parts = []
        while length and (part := os.pread(self._file.fileno(), length, start)):
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __contains__(self, digest: object) -> bool:
        return digest in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
