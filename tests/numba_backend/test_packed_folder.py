"""Packed folders: what comes back is what was packed, mapped; anything else is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_cases import GOLDEN
from safetensors import safe_open
from safetensors.numpy import save_file

import aimv2_np
from aimv2_np.cli import main
from aimv2_np.hub import PACKED
from aimv2_np.numba_backend import backend_for
from aimv2_np.numba_backend.isa import FORCE, INSTRUCTION_SETS, choose
from aimv2_np.numba_backend.packed_folder import _LAYOUT
from aimv2_np.numba_backend.packing import pack

DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The packaged model, packed in each dtype by the command line."""
    base = tmp_path_factory.mktemp("packed")
    for dtype in ("float32", "bfloat16", "int8"):
        command = ["pack", "emoji-lit", "--dtype", dtype, "--out", str(base / dtype), "--json"]
        assert main(command) == 0
    return {dtype: base / dtype for dtype in ("float32", "bfloat16", "int8")}


@DTYPES
def test_a_packed_model_computes_the_same_bits(folders: dict[str, Path], dtype: str) -> None:
    plain = aimv2_np.load("emoji-lit", backend="numba", dtype=dtype)
    packed = aimv2_np.load(folders[dtype])  # which dtype and backend, the folder says
    assert (packed.dtype, packed.backend.name) == (dtype, "numba")
    images, texts = list(aimv2_np.samples().values())[:3], ["cat", "two dogs"]
    assert np.array_equal(packed.encode_image(images), plain.encode_image(images))
    assert np.array_equal(packed.encode_text(texts), plain.encode_text(texts))
    assert packed.info["parameters"] == plain.info["parameters"]
    assert str(packed.classify(images, texts)) == str(plain.classify(images, texts))


@DTYPES
def test_weights_are_mapped_not_copied(folders: dict[str, Path], dtype: str) -> None:
    blocks = aimv2_np.load(folders[dtype]).params.vision.blocks
    for four in blocks.matrices:
        for matrix in four:
            assert not matrix.weights.flags.owndata
            assert not matrix.weights.flags.writeable
    sizes = {d: (folder / PACKED).stat().st_size for d, folder in folders.items()}
    assert sizes["int8"] < 0.9 * sizes["bfloat16"] < 0.5 * sizes["float32"]


def test_a_vision_only_model_and_one_without_learned_positions(tmp_path: Path) -> None:
    native = GOLDEN / "vision-native" / "transformers"
    assert main(["pack", str(native), "--out", str(tmp_path / "native"), "-q"]) == 0
    picture = np.random.default_rng(0).integers(0, 255, (160, 190, 3)).astype(np.uint8)
    found = aimv2_np.load(tmp_path / "native").patch_features([picture])[0]
    expected = aimv2_np.load(native, backend="numba").patch_features([picture])[0]
    assert np.array_equal(found, expected)


# ---------------------------------------------------------------------------- refused


def edited(folder: Path, target: Path, **metadata: str) -> Path:
    """A copy with other metadata."""
    shutil.copytree(folder, target)
    with safe_open(folder / PACKED, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(arrays, target / PACKED, metadata={**file.metadata(), **metadata})
    return target


def test_another_instruction_set_is_refused(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = edited(folders["int8"], tmp_path / "other", instruction_set="avx1024")
    message = f"packed for avx1024, but the kernels here are those for {choose().name}; pack"
    with pytest.raises(aimv2_np.BackendUnavailable, match=message):
        aimv2_np.load(other)
    monkeypatch.setenv(FORCE, "plain")
    with pytest.raises(aimv2_np.BackendUnavailable, match="the kernels here are those for plain"):
        aimv2_np.load(folders["int8"])


def changed(tower: str, **values: Any) -> Any:
    """The metadata's config with other values."""

    def damage(metadata: Any) -> dict[str, str]:
        config = json.loads(metadata["config"])
        (config[tower] if tower else config).update(values)
        return {"config": json.dumps(config)}

    return damage


DAMAGE = [
    lambda _: {"config": "{"},
    lambda _: {"config": "[" * 100_000},
    lambda _: {"info": "[]"},
    lambda _: {"dtype": "int4"},
    changed("text", num_attention_heads=65),  # kernels would write beyond their memory
    changed("vision", num_attention_heads=0),
    changed("vision", num_attention_heads="6"),
    changed("vision", hidden_size=None),
    changed("vision", rms_norm_eps="x"),
    changed("vision", another=1),
    changed("", max_logit_scale="x"),
    changed("", text=3),
]


def test_another_layout_or_damage_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    older = edited(folders["int8"], tmp_path / "older", **{"aimv2_np.packed": "0"})
    with pytest.raises(aimv2_np.CheckpointError, match="packed in layout 0, this version reads"):
        aimv2_np.load(older)
    for i, damage in enumerate(DAMAGE):
        broken = edited(
            folders["int8"], tmp_path / f"broken-{i}", **damage(_metadata(folders["int8"]))
        )
        with pytest.raises(aimv2_np.CheckpointError, match="its metadata is damaged"):
            aimv2_np.load(broken)
    config = json.loads(_metadata(folders["int8"])["config"])
    config["vision"]["intermediate_size"] += 64  # kernels would read beyond the arrays
    larger = edited(folders["int8"], tmp_path / "larger", config=json.dumps(config))
    with pytest.raises(aimv2_np.CheckpointError, match=r"blocks.0.fc1_fc3.weights.*expected int8"):
        aimv2_np.load(larger)
    short = tmp_path / "short"
    shutil.copytree(folders["int8"], short)
    with (short / PACKED).open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(aimv2_np.CheckpointError, match="incomplete"):
        aimv2_np.load(short)


def _metadata(folder: Path) -> Any:
    with safe_open(folder / PACKED, "np") as file:
        return file.metadata()


def test_another_dtype_or_backend_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(aimv2_np.BackendUnavailable, match="packed in int8, not in 'float32'"):
        aimv2_np.load(folders["int8"], dtype="float32")
    with pytest.raises(aimv2_np.BackendUnavailable, match="packed for the numba backend"):
        aimv2_np.load(folders["int8"], backend="numpy")


def test_a_command_line_that_needs_a_checkpoint_says_what_it_found(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(folders["int8"])]) == 1
    assert "holds packed weights, not a checkpoint" in capsys.readouterr().err


# ---------------------------------------------------------------------------- the command


def test_what_is_written_and_what_is_in_the_way(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {path.name for path in folders["int8"].iterdir()}
    assert names > {PACKED, "config.json", "preprocessor_config.json", "vocab.json", "merges.txt"}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out, complaint in (
        ("full", "holds other files"),
        ("file", "exists and is no folder"),
        ("no/where", "there is no folder"),
        ("n" * 300, "File name too long"),
    ):
        assert main(["pack", "emoji-lit", "--out", str(tmp_path / out), "--force"]) == 1
        assert complaint in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"full", "file"}
    assert main(["pack", str(folders["int8"]), "--out", str(tmp_path / "again")]) == 1
    assert "is packed already" in capsys.readouterr().err


def test_packing_anew_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert main(["pack", "emoji-lit", "--out", out, "-q"]) == 0
    native = GOLDEN / "vision-native" / "transformers"
    assert main(["pack", str(native), "--out", out, "-q"]) == 1
    assert main(["pack", str(native), "--out", out, "-q", "--force"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {PACKED, "config.json"}


def test_an_interrupted_pack_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.numpy.save_file", interrupted)
    assert main(["pack", "emoji-lit", "--out", str(tmp_path / "out")]) != 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_packed_folder_does_not_take(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(aimv2_np.CheckpointError, match="takes no revision and no num_heads"):
        aimv2_np.load(folders["int8"], revision="main")
    assert aimv2_np.load(folders["int8"], check=True, dtype=np.dtype("int8")).dtype == "int8"
    spoilt = tmp_path / "spoilt"
    shutil.copytree(folders["bfloat16"], spoilt)
    with safe_open(spoilt / PACKED, "np") as file:
        arrays = {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    arrays["vision.blocks.1.proj.weights"].flat[5] = 0x7FC0
    save_file(arrays, spoilt / PACKED, metadata=metadata)
    with pytest.raises(aimv2_np.CheckpointError, match=r"NaN .* in vision.blocks.1.proj.weights"):
        aimv2_np.load(spoilt, check=True)


def test_a_backend_of_another_instruction_set_runs_what_was_packed(
    folders: dict[str, Path],
) -> None:
    """Packed weights know whose tiles they are for, whatever the backend was made for."""
    plain = backend_for(next(isa for isa in INSTRUCTION_SETS if isa.name == "plain"))
    found = aimv2_np.load(folders["float32"], backend=plain).encode_text("a cat")
    assert np.array_equal(found, aimv2_np.load(folders["float32"]).encode_text("a cat"))


def test_pages_are_shared_not_private(folders: dict[str, Path]) -> None:
    """What a process keeps for itself of the mapped weights that it has read."""
    if not Path("/proc/self/smaps").exists():
        pytest.skip("needs Linux's /proc/self/smaps to see what is shared")
    program = (
        "import sys, aimv2_np; m = aimv2_np.load(sys.argv[1]); m.encode_text('a cat');"
        "lines = open('/proc/self/smaps').read().split('\\n');"
        f"at = [i for i, l in enumerate(lines) if l.endswith('{PACKED}')];"
        "count = lambda *names: sum(int(l.split()[1]) for i in at for l in lines[i:i + 24]"
        " if l.startswith(names));"
        "print(count('Rss:'), count('Private_Dirty:', 'Anonymous:'))"
    )
    command = [sys.executable, "-c", program, str(folders["float32"])]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    resident, private = map(int, found.split())
    assert resident > 1000  # kB
    assert private == 0


# ---------------------------------------------------------------------------- the layout

LAYOUT = "2"
DIGESTS = {
    "avx512bf16 float32": "46685f46ad29",
    "avx512bf16 bfloat16": "0a3b50d6fd2a",
    "avx512bf16 int8": "303ef18e8488",
    "avx512vnni float32": "46685f46ad29",
    "avx512vnni bfloat16": "fdf933b63fa5",
    "avx512vnni int8": "303ef18e8488",
    "avx512 float32": "46685f46ad29",
    "avx512 bfloat16": "fdf933b63fa5",
    "avx512 int8": "2757cba56244",
    "avx2 float32": "e551756bdae9",
    "avx2 bfloat16": "b176e3e52f8d",
    "avx2 int8": "abef4a5582df",
    "neon float32": "0b34c1c3214d",
    "neon bfloat16": "f76e0d8e24d4",
    "neon int8": "35e38146d5d8",
    "plain float32": "c0874d93e471",
    "plain bfloat16": "f4c6faf787fd",
    "plain int8": "5ec0a8c8a925",
}


def test_a_changed_layout_has_another_number() -> None:
    """Folders of an older layout must be refused, not misread.

    Where this fails, weights are packed in another way than LAYOUT was: raise _LAYOUT in
    packed_folder.py and LAYOUT here, then take over the new digests.
    """
    rng = np.random.default_rng(0)
    one, other = (rng.integers(-90, 90, (30, 22)).astype(np.float32) for _ in range(2))
    one[:, 3] = other[:, 5] = 127  # so that int8 rounds nothing
    found = {}
    for isa in INSTRUCTION_SETS:
        for dtype in ("float32", "bfloat16", "int8"):
            digest = hashlib.sha256()
            for paired in (False, True):
                matrix = pack([one, other], isa, dtype, paired=paired)
                for array in (matrix.weights, matrix.scales, matrix.offsets):
                    digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
            found[f"{isa.name} {dtype}"] = digest.hexdigest()[:12]
    assert (_LAYOUT, found) == (LAYOUT, DIGESTS)
