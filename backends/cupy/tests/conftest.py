"""Finds the plug-in's sources where it is not installed, and the helpers beside the tests."""

import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE / "host_shim")]


@pytest.fixture(scope="session")
def host_of(tmp_path_factory):
    """`host_of("float16")`: the kernels of a dtype on the CPU, built when first asked for."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: it builds the kernels for the CPU")
    pytest.importorskip("ml_dtypes", reason="ml_dtypes, NumPy's bfloat16, is not installed")
    from host import Host, build

    built = {}

    def get(dtype):
        if dtype not in built:
            library = tmp_path_factory.mktemp("host") / f"{dtype}.so"
            build(dtype, library)
            built[dtype] = Host(dtype, library)
        return built[dtype]

    return get


@pytest.fixture(params=["float32", "float16", "bfloat16"])
def host(host_of, request):
    """The kernels on the CPU, in each dtype."""
    return host_of(request.param)


@pytest.fixture(params=["float16", "bfloat16"])
def host16(host_of, request):
    """The same, in the dtypes of the tensor cores."""
    return host_of(request.param)
