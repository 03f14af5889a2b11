"""What is whole in a damaged file: `read` with partial=True."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import chain, islice

from latentpress.container.contents import Contents, check_end
from latentpress.container.frames import Frame, computed_crc, frame_at
from latentpress.container.index import index_of
from latentpress.container.layout import END, label_of
from latentpress.errors import FormatError, UnsupportedError

RESCUE_BYTES = 1 << 33  # reading a damaged file in part checksums at most so many bytes besides going over it a few times: seconds
RESCUE_PLACES = 1 << 18  # and tries so many places where a chunk may begin: seconds, the places in 22 MB of noise


class Rescue:
    """Walks a damaged file from whole chunk to whole chunk.

    After a damaged chunk the walk goes on where that chunk says it ends if something whole stands there; else at the next bytes that are a
    chunk by their CRC, or at the next chunk that the index knows, whichever comes first.
    """

    def __init__(self, contents: Contents) -> None:
        self.contents, self.source, self.header = contents, contents.source, contents.header
        self.index = index_of(self.source, self.header, contents.limits)
        self.entries = [] if self.index is None else self.index.entries
        self.offsets = [entry.offset for entry in self.entries]
        self.bytes_left = 4 * self.source.size + RESCUE_BYTES
        self.places_left = RESCUE_PLACES
        self.damage: list[str] = []

    def run(self) -> list[str]:
        at = self.header.size
        while not self._is_tail(at):
            frame = self._parsed(at)
            if frame is not None and self._is_whole(frame):
                self._noting(self.contents.add, frame)
                at = frame.end
                continue
            stop = next(self._whole_after(frame, at), None)
            if stop is None:
                self._report_end(frame, at)
                return self.damage
            self._report(frame, at, stop)
            at = stop
        if not self.damage:
            self._noting(check_end, self.contents, at + 1)
        return self.damage

    def _is_tail(self, at: int) -> bool:
        """True if an end mark stands here with nothing behind it, or a valid index."""
        ends = {self.source.size} if self.index is None else {self.source.size, self.index.start}
        return at + 1 in ends and self.source.view(at, 1)[0] == END

    def _parsed(self, at: int) -> Frame | None:
        try:
            return frame_at(self.source, at)
        except (FormatError, UnsupportedError):
            return None

    def _is_whole(self, frame: Frame) -> bool:
        if frame.end > self.source.size:
            return False
        self.bytes_left -= frame.end - frame.start
        return self.bytes_left > 0 and computed_crc(self.source, self.header, frame) == int.from_bytes(frame.crc, "little")

    def _noting(self, check: Callable[..., None], *arguments: object) -> None:
        try:
            check(*arguments)
        except FormatError as error:
            self.damage.append(str(error))

    def _whole_after(self, frame: Frame | None, at: int) -> Iterator[int]:
        """Offsets behind the damaged chunk at `at` where the walk can go on, best first."""
        if frame is not None and self._stands(frame.end):
            yield frame.end
        known = bisect_right(self.offsets, at)  # how many chunks of the index begin here or before
        start = at + 1
        if known and self.offsets[known - 1] == at:
            start += self.entries[known - 1].length - 1
        if self.index is None:
            yield from self._scan(start, self.source.size)
        else:
            # noise in the payload of a data chunk is not searched: only metadata can stand before the next known offset
            later = [*self.offsets[known : known + 1], self.index.start - 1]
            yield from self._scan(start, later[0])
            yield from filter(self._stands, chain(islice(self.offsets, known, None), [self.index.start - 1]))

    def _stands(self, at: int) -> bool:
        """True if a whole chunk, or the end, stands here."""
        return self._is_tail(at) or ((frame := self._parsed(at)) is not None and self._is_whole(frame))

    def _scan(self, start: int, stop: int) -> Iterator[int]:
        for match in re.finditer(rb"[\x01\x02\x10]", self.source.view(start, max(0, stop - start))):
            self.places_left -= 1
            if self.places_left < 0:
                return
            if (frame := self._parsed(start + match.start())) is not None and self._is_whole(frame):
                yield frame.start

    def _report_end(self, frame: Frame | None, start: int) -> None:
        """What is lost from `start` on, where nothing whole follows."""
        if bytes(self.source.view(start, 1)) == bytes([END]):
            self.damage.append(f"bytes {start} to {self.source.size - 1}: what follows the end mark is no index of this file")
            return
        self._report(frame, start, self.source.size)
        self.damage.append("the end mark is missing: the file was cut, or its end is damaged")

    def _report(self, frame: Frame | None, start: int, stop: int) -> None:
        """One line for each chunk lost between two offsets, named by the index, else by its own frame."""
        lost = self.entries[bisect_left(self.offsets, start) : bisect_left(self.offsets, stop)]
        names = [(label_of(e.kind, e.position), e.offset, e.offset + e.length) for e in lost]
        if frame is not None and all(e.offset != frame.start for e in lost):
            names.insert(0, (frame.label, frame.start, min(frame.end, stop)))
        if not names and start < stop:
            names = [("unknown chunk", start, stop)]
        self.damage += [f"{label}, bytes {begin} to {end - 1}: damaged, left out" for label, begin, end in names]
