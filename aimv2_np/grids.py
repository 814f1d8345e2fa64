"""The positions of a model for grids of any size, made once for each."""

from __future__ import annotations

from .backend import Backend, host_dtype
from .ops import Array, resample_positions, sincos_positions
from .outputs import HostArray

__all__ = ["Positions"]

KEPT = 4  # sizes: 4096 patches of width 1024 are 16 MB


class Positions:
    """On the host. A learned table is resampled; without one they are sines and cosines."""

    def __init__(self, table: Array | None, width: int, be: Backend, dtype: str) -> None:
        self.table, self.width, self.be, self.dtype = table, width, be, host_dtype(dtype)
        self.latest: dict[tuple[int, int], HostArray] = {}

    def __call__(self, rows: int, columns: int) -> HostArray:
        """(rows·columns, D), not to be written to; those of the latest sizes are kept."""
        size = rows, columns
        found = self.latest.pop(size, None)
        if found is None:
            found = self._made(rows, columns)
            found.setflags(write=False)
        self.latest[size] = found
        for oldest in [*self.latest][:-KEPT]:
            self.latest.pop(oldest, None)
        return found

    def _made(self, rows: int, columns: int) -> HostArray:
        if self.table is None:
            return sincos_positions(rows, columns, self.width, self.dtype)  # type: ignore[no-any-return]
        return resample_positions(self.be.to_numpy(self.table), rows, columns)  # type: ignore[no-any-return]
