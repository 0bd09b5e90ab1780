"""Saved facts made small: what is open for hours is counted by the million. Pure.

A dictionary of the first facts packed stands for what all have in common (names, accounts, carriers), so a few hundred
bytes of JSON become a quarter of that. It lives as long as the process: nothing packed leaves it.
"""

import sys
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_SAMPLES: Final = 64
_OPTIONS: Final[dict[int, int]] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.checksum_flag: 0,
    zstd.CompressionParameter.dict_id_flag: 0,
}


class Packing:
    """Packs JSON objects; until it has seen enough of them to know what they have in common, it leaves them as is."""

    def __init__(self) -> None:
        self._samples: list[bytes] = []
        self._dictionary: zstd.ZstdDict | None = None
        self._compressor: zstd.ZstdCompressor | None = None

    def pack(self, facts: bytes) -> bytes:
        """What `unpack` makes `facts` of; itself if that was packed before."""
        if not facts.startswith(b"{"):
            return facts
        if self._compressor is None:
            self._samples.append(facts)
            if len(self._samples) < _SAMPLES:
                return facts
            self._dictionary = zstd.ZstdDict(b"".join(self._samples), is_raw=True)
            self._compressor = zstd.ZstdCompressor(options=_OPTIONS, zstd_dict=self._dictionary.as_digested_dict)
            self._samples = []
        return self._compressor.compress(facts, zstd.ZstdCompressor.FLUSH_FRAME)

    def unpack(self, packed: bytes) -> bytes:
        """The facts, whether they were packed or left as they are."""
        if self._dictionary is None or packed.startswith(b"{"):
            return packed
        return zstd.decompress(packed, zstd_dict=self._dictionary.as_digested_dict)
