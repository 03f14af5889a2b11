"""The .lpz file: header, chunks, checksums, limits. `docs/FORMAT.md` says it byte by byte.

    Encoded, metadata --write--> bytes --write_file--> disk
    disk -> bytes --read--> File(encoded, metadata, damage, ...)
                  --read_header--> Header           the first HEADER_MAX bytes are enough
    disk ----------read_chunk--> Chunk              one position, through the index
    disk ------read_directory--> Directory          header, metadata and index, for many such reads

Knows neither codecs nor torch. Whatever the bytes, reading ends in a correct result or in a FormatError (ChecksumError among them),
LimitError or UnsupportedError: a size is compared with the limits and with the bytes that are there before anything is allocated for it.

    layout    numbers of the format, limits, what reading gives
    values    numbers and texts as bytes           writing   write
    cursor    ... and back                         reading   read
    sources   memory and disk, checksums           rescue    read, of a damaged file
    header    read_header                          access    read_chunk, read_metadata
    frames    one chunk                            atomic    write_file, write_path
    contents  rules between chunks                  directory  read_directory
    index     where each data chunk begins
"""

from latentpress.container.access import read_chunk, read_metadata
from latentpress.container.atomic import write_file, write_path
from latentpress.container.directory import Directory, read_directory
from latentpress.container.header import read_header
from latentpress.container.layout import DTYPES, HEADER_MAX, MAGIC, SHORT_NAMES, ChunkEntry, File, Header, Limits
from latentpress.container.reading import read
from latentpress.container.writing import write

__all__ = [
    "DTYPES",
    "HEADER_MAX",
    "MAGIC",
    "SHORT_NAMES",
    "ChunkEntry",
    "Directory",
    "File",
    "Header",
    "Limits",
    "read",
    "read_chunk",
    "read_directory",
    "read_header",
    "read_metadata",
    "write",
    "write_file",
    "write_path",
]
