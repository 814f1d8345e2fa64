"""Launches every kernel that shares memory, from a library built with g++'s ThreadSanitizer.

    LD_PRELOAD=libtsan.so python races.py LIBRARY      # bfloat16

Two threads that use one place, one of them writing, with no barrier between: the sanitizer prints
where and the exit status is not 0. Shapes are the smallest that go through every loop twice.
"""

import sys
from ctypes import c_float, c_int, c_longlong

import numpy as np

from host import Host

host = Host("bfloat16", sys.argv[1])
rng = np.random.default_rng(0)


def numbers(*shape):
    """Random ones."""
    return host.array(rng.normal(size=shape))


x, weight, y = numbers(2, 100), numbers(100), numbers(2, 100)
host.launch("rms_norm", (2,), 64, x, weight, y, c_int(100), c_float(1e-5))

fused, out = numbers(1, 40, 2, 32), numbers(1, 32)
strides = c_longlong(64), c_longlong(40 * 64)
k, v = fused[:, :, 0], fused[:, :, 1]
host.launch("pool", (1, 1), 256, numbers(1, 32), k, v, out, c_int(40), c_int(32), *strides)

for entry, tokens, rows in (("attention_64", 130, 64), ("attention_plain", 40, 16)):
    qkv, out = numbers(tokens, 3, 64), numbers(tokens, 64)
    ends = np.array([0, tokens], np.int32)
    sizes = [c_longlong(192), c_longlong(64), c_int(0)]
    sizes += [c_int(64)] if entry == "attention_plain" else []
    grid = (-(-tokens // rows), 1, 1)
    host.launch(entry, grid, 128, qkv[:, 0], qkv[:, 1], qkv[:, 2], out, ends, ends[1:], *sizes)
