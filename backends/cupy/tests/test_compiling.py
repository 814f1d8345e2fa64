"""Every kernel compiles for every architecture and dtype; no GPU is needed."""

from pathlib import Path

import pytest

from aimv2_np_cupy import ptxas
from aimv2_np_cupy.compiling import (
    KERNELS,
    CompilationFailed,
    compile_cubin,
    options,
    source,
    wheel_include_dirs,
)

REPORT = Path(__file__).parents[1] / "reports" / "ptxas.txt"
CASES = [(arch, name) for arch in ptxas.ARCHITECTURES for name in KERNELS]
REGISTERS = 65536  # of a multiprocessor, sm_80 to sm_120 (CUDA C++ Programming Guide)
SHARED = {80: 164, 90: 228, 100: 228, 120: 100}  # KiB of a multiprocessor, same table
LIMIT = 48 * 1024  # bytes of shared memory that a block has without asking for more


@pytest.fixture(scope="module")
def include_dirs():
    try:
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"CuPy with NVRTC is missing: {error}")
    folders = wheel_include_dirs()
    for header in ("cuda_fp16.h", "vector_types.h"):
        if not any((folder / header).exists() for folder in folders):
            pytest.skip(f"{header} is missing: pip install nvidia-cuda-runtime-cu12")
    return folders


@pytest.fixture(scope="module")
def compiled(include_dirs):
    """Every kernel for every dtype and architecture, compiled now."""
    return list(ptxas.usages(include_dirs))


@pytest.fixture(scope="module")
def live(compiled):
    """What ptxas says of them, by architecture and entry, for all dtypes."""
    found = {}
    for entry, dtype, arch, used in compiled:
        found.setdefault((arch, entry), {})[dtype] = used
    return found


@pytest.mark.parametrize(("arch", "name"), CASES)
def test_every_kernel_compiles_without_spills(live, arch, name):
    for entry in KERNELS[name].entries:
        assert set(live[arch, entry]) == set(KERNELS[name].dtypes)
        for used in live[arch, entry].values():
            assert (used.spills, used.stack) == (0, 0)
            assert used.shared <= LIMIT


@pytest.mark.parametrize("arch", ptxas.ARCHITECTURES)
@pytest.mark.parametrize(("entry", "blocks"), [("attention_64", 3), ("attention_128", 2)])
def test_attention_shares_a_multiprocessor(live, arch, entry, blocks):
    """Some blocks compute while others wait; `blocks` at least, one more for sm_80 and sm_90."""
    blocks += arch < 100
    for used in live[arch, entry].values():
        of_thread = -(-used.registers // 8) * 8  # they are given out in eights
        assert blocks * 128 * of_thread <= REGISTERS
        assert blocks * (used.shared + 1024) <= SHARED[arch] * 1024  # CUDA keeps 1 KiB of each


def test_a_cubin_is_an_elf_file_with_its_entries(include_dirs):
    cubin, _ = compile_cubin("attention", "bfloat16", 90, include_dirs)
    assert cubin.startswith(b"\x7fELF")
    assert b".text.attention_64" in cubin
    assert b".text.attention_128" in cubin


def test_the_report_that_is_kept_is_the_live_one(compiled):
    kept, live = REPORT.read_text(), ptxas.report(compiled)
    if kept.splitlines()[0] != live.splitlines()[0]:
        pytest.skip("reports/ptxas.txt is of another NVRTC: " + kept.splitlines()[0])
    assert kept == live, f"python -m aimv2_np_cupy.ptxas > {REPORT}"


def test_a_failed_compilation_says_what_nvrtc_said(include_dirs, monkeypatch):
    monkeypatch.setattr("aimv2_np_cupy.compiling.source", lambda name: source(name) + "\nnonsense;")
    with pytest.raises(CompilationFailed, match=r"kernel pool in float16 .* sm_90") as caught:
        compile_cubin("pool", "float16", 90, include_dirs)
    assert "nonsense" in caught.value.log


def test_missing_headers_are_a_failed_compilation(include_dirs):
    with pytest.raises(CompilationFailed, match=r"cuda_bf16\.h"):
        compile_cubin("swiglu", "float32", 80)


def test_what_does_not_exist_is_named():
    with pytest.raises(ValueError, match="no kernel 'atention'; there are rms_norm, "):
        compile_cubin("atention", "float16", 90)
    with pytest.raises(ValueError, match="attention has no 'float32'; it has float16, bfloat16"):
        compile_cubin("attention", "float32", 90)


def test_options_name_the_architecture_the_storage_and_the_headers():
    made = options("bfloat16", 120, ["/cuda/include"])
    assert made[:1] + made[2:] == (
        "--gpu-architecture=sm_120",
        "--define-macro=STORAGE=__nv_bfloat16",
        "--ptxas-options=-v",
        "--include-path=/cuda/include",
    )


def test_a_report_of_spills_is_read():
    """The words of ptxas 12.9, from a kernel that was made to spill."""
    log = """ptxas info    : 32 bytes gmem
ptxas info    : Compiling entry function 'f' for 'sm_100'
ptxas info    : Function properties for f
ptxas         .     24 bytes stack frame, 36 bytes spill stores, 44 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 49152 bytes smem
"""
    assert ptxas.usage(log) == {"f": ptxas.Usage(168, spills=80, stack=24, shared=49152)}
