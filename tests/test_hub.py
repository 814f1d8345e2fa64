"""Names to files: the disk, the packaged models, and the hub played by `fake_hub`.

The library huggingface_hub is the real one throughout. It reads its environment when it is
imported, so most tests replace its constants in this process, and those about the environment
start processes of their own.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import huggingface_hub
import pytest
from fake_hub import FakeHub, serve
from huggingface_hub import constants, file_download
from huggingface_hub.utils import are_progress_bars_disabled

from aimv2_np import hub as hub_module
from aimv2_np.config import OFFICIAL
from aimv2_np.errors import AIMv2Warning, CheckpointError
from aimv2_np.hub import is_cached, packaged_models, resolve

GOLDEN = Path(__file__).parent / "golden"
LIT = "apple/aimv2-large-patch14-224-lit"
SIDE = {
    "config.json": b"{}",
    "preprocessor_config.json": b'{"do_resize": true}',
    "vocab.json": b'{"a": 0}',
    "merges.txt": b"#version: 0.2\n",
    "special_tokens_map.json": b'{"pad_token": "a"}',
    "tokenizer_config.json": b'{"model_max_length": 77}',
}
UNWANTED = {
    "README.md": b"# hello",
    "modeling_aimv2.py": b"import os",
    "pytorch_model.bin": b"\x80\x04.",
    ".gitattributes": b"",
    "onnx/model.safetensors": b"other",
}


def golden(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (GOLDEN / folder).iterdir()}


def everything() -> dict[str, bytes]:
    """A repository such as the official ones: three copies of the weights, and more."""
    copies = golden("lit/mlx") | golden("lit/jax") | golden("lit/transformers")
    return copies | {n: d for n, d in SIDE.items() if n != "config.json"} | UNWANTED


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    with serve() as fake:
        template = fake.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", fake.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)  # what a cut leaves behind
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the library's pauses
        yield fake


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def failure(model: object, **arguments: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(model, **arguments)  # type: ignore[arg-type]
    assert caught.value.__cause__ is None  # nothing foreign, and nothing secret, is shown
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


# ---------------------------------------------------------------------------- the disk


def test_folder_gives_its_files() -> None:
    folder = GOLDEN / "lit" / "transformers"
    files = resolve(str(folder))
    assert files.weights == (folder / "model.safetensors",)
    assert files.config == folder / "config.json"
    assert files.preprocessor_config is None
    assert files.folder == folder
    assert files.name == str(folder)
    assert files.official is None


ORDER = [
    "model.safetensors",
    "model.safetensors.index.json",
    "mlx_model.safetensors",
    "flax_model.msgpack",
    "other.safetensors",
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_order_of_weights_files(tmp_path: Path, first: int) -> None:
    write(tmp_path, *ORDER[first:], "model-00001-of-00002.safetensors", "pytorch_model.bin")
    assert resolve(tmp_path).weights == (tmp_path / ORDER[first],)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "found nothing"),
        (["pytorch_model.bin", "config.json"], "pickles are never read"),
        (["one.safetensors", "two.safetensors"], "one.safetensors, two.safetensors; pass the path"),
        (["model-00001-of-00002.safetensors"], "its shards need their model.safetensors.index"),
        (["notes.txt"], "found notes.txt"),
    ],
)
def test_folder_without_usable_weights(tmp_path: Path, names: list[str], said: str) -> None:
    message = failure(write(tmp_path, *names))
    assert said in message
    assert str(tmp_path) in message


def test_folder_of_folders_names_them(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert "found sub/" in failure(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_folder_or_broken_link_in_place_of_a_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, "other.safetensors")
    (tmp_path / name).mkdir()
    assert "should be a file" in failure(tmp_path)
    (tmp_path / name).rmdir()
    (tmp_path / name).symlink_to(tmp_path / "gone")
    assert "should be a file" in failure(tmp_path)


@pytest.mark.parametrize(
    "file", ["lit/jax/flax_model.msgpack", "lit/transformers-sharded/model.safetensors.index.json"]
)
def test_single_file(file: str) -> None:
    path = GOLDEN / file
    files = resolve(path)
    assert files.weights == (path,)
    beside = path.parent / "config.json"
    assert files.config == (beside if beside.exists() else None)
    assert files.folder == path.parent


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.bin", "pickles are never read"),
        ("model.pt", "pickles are never read"),
        ("config.json", "pass its folder"),
        ("photo.png", "no weights file; expected .safetensors"),
    ],
)
def test_single_file_of_another_kind(tmp_path: Path, name: str, said: str) -> None:
    assert said in failure(write(tmp_path, name) / name)


def test_fifo_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    assert "neither a file nor a folder" in failure(tmp_path / "model.safetensors")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "m", "model.safetensors")
    assert resolve("~/m").weights == (tmp_path / "m" / "model.safetensors",)


def test_existing_path_wins_over_official_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "large-patch14-224", "model.safetensors")
    files = resolve("large-patch14-224")
    assert files.weights == (Path("large-patch14-224/model.safetensors"),)
    assert files.official is None


def test_revision_of_something_on_the_disk() -> None:
    assert "leave revision= out" in failure(GOLDEN / "lit" / "transformers", revision="main")


def as_nobody(act: Callable[[], object]) -> str:
    """What happens to somebody without rights: tests may run as root, who may read everything."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            text = f"no error: {act()!r}"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs the rights of POSIX systems")
def test_unreadable_folder() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        locked = write(Path(name) / "locked" / "inner", "model.safetensors").parent
        locked.chmod(0)
        try:
            said = as_nobody(lambda: resolve(locked))
            inner = as_nobody(lambda: resolve(locked / "inner" / "model.safetensors"))
        finally:
            locked.chmod(0o755)
    assert said == f"CheckpointError: cannot list the folder {locked}: Permission denied"
    assert inner.startswith(f"CheckpointError: cannot read {locked}/inner")


# ---------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "path",
    ["./x", "../x", "~/x", "/x/y", "a/b/c", "x.safetensors", "x.msgpack", "x.json", "x.bin", "x/"],
)
def test_missing_path_is_not_looked_up(path: str, hub: FakeHub) -> None:
    assert "there is no such file or folder" in failure(path)
    assert hub.requests == []


def test_path_object_is_never_a_name(hub: FakeHub) -> None:
    assert "there is no such file or folder" in failure(Path("large-patch14-224"))
    assert hub.requests == []


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a\0b", "x" * 1000, "x" * 100_000, "a/..", "owner/na me", "ö/b", "a--b/c",
     "owner/name.git", "-a/b", "\ud800", "a\nb", "owner/" + "x" * 97, "https://u:pw@host/a",
     3, None, b"lit", "clip"],
)  # fmt: skip
def test_strange_names(name: object, hub: FakeHub) -> None:
    message = failure(name)
    assert "ccepted are an official name" in message
    assert "pw" not in message
    assert len(message) < 600
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("large-patch14-225", "large-patch14-224"),
        ("Large-Patch14-Native", "large-patch14-native"),
        ("1b-patch14-224", "1B-patch14-224"),
        ("large-patch14-224-let", "large-patch14-224-lit"),
    ],
)
def test_nearest_official_names(name: str, nearest: str) -> None:
    assert f"did you mean {nearest}" in failure(name)


def test_packaged_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PACKAGED", tmp_path)
    write(tmp_path / "small-lit", "model.safetensors", "config.json", "vocab.json")
    write(tmp_path / "__pycache__")
    assert packaged_models() == ["small-lit"]
    files = resolve("small-lit")
    assert files.weights == (tmp_path / "small-lit" / "model.safetensors",)
    assert files.folder == tmp_path / "small-lit"
    monkeypatch.setattr(hub_module, "PACKAGED", tmp_path / "nowhere")
    assert packaged_models() == []


# ---------------------------------------------------------------------------- downloading


def test_only_needed_files_are_downloaded(hub: FakeHub, cache: Path) -> None:
    hub.add(LIT, everything(), commit="1" * 40)
    files = resolve("large-patch14-224-lit", progress=False)
    assert hub.downloaded() == [*SIDE, "model.safetensors"]
    assert files.official == "large-patch14-224-lit"
    assert files.name == "large-patch14-224-lit"
    assert files.folder.name == "1" * 40
    assert files.folder.is_relative_to(cache)
    assert files.weights[0].read_bytes() == everything()["model.safetensors"]
    assert files.config is not None
    assert files.preprocessor_config is not None
    assert sorted(p.name for p in files.folder.iterdir()) == sorted([*SIDE, "model.safetensors"])
    assert {r.authorization for r in hub.requests} == {None}
    resolved = [r.path for r in hub.requests if "/resolve/" in r.path]
    assert all(path.startswith(f"/{LIT}/resolve/{'1' * 40}/") for path in resolved)


def test_second_load_asks_once_and_downloads_nothing(hub: FakeHub) -> None:
    hub.add(LIT, everything())
    first = resolve(LIT, progress=False)
    hub.requests.clear()
    assert resolve(LIT, progress=False) == first
    assert [r.method + " " + r.path for r in hub.requests] == [
        f"GET /api/models/{LIT}/revision/main"
    ]


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("aimv2-huge-patch14-336", "apple/aimv2-huge-patch14-336"),
        ("apple/aimv2-huge-patch14-336", "apple/aimv2-huge-patch14-336"),
        ("aimv2-of-tomorrow", "apple/aimv2-of-tomorrow"),
        ("somebody/fine-tuned", "somebody/fine-tuned"),
    ],
)
def test_names_of_repositories(name: str, hub_id: str, hub: FakeHub) -> None:
    hub.add(hub_id, golden("vision-absolute/transformers"))
    files = resolve(name, progress=False)
    assert hub.requests[0].path == f"/api/models/{hub_id}/revision/main"
    assert files.official == ("huge-patch14-336" if "huge" in name else None)


@pytest.mark.parametrize("layout", ["mlx", "jax"])
def test_other_layouts_of_weights(layout: str, hub: FakeHub) -> None:
    hub.add("o/m", golden(f"lit/{layout}") | UNWANTED)
    (expected,) = golden(f"lit/{layout}")
    assert resolve("o/m", progress=False).weights[0].name == expected
    assert hub.downloaded() == [expected]


def test_sharded_downloads_the_shards_of_the_index(hub: FakeHub) -> None:
    shards = golden("lit/transformers-sharded")
    hub.add("o/m", shards | {"model-00009-of-00009.safetensors": b"stray"} | golden("lit/mlx"))
    files = resolve("o/m", progress=False)
    assert files.weights[0].name == "model.safetensors.index.json"
    assert hub.downloaded() == ["config.json", files.weights[0].name] + [
        f"model-{i:05}-of-00005.safetensors" for i in range(1, 6)
    ]
    for name, data in shards.items():
        assert (files.folder / name).read_bytes() == data


def test_index_names_a_shard_that_the_repository_lacks(hub: FakeHub) -> None:
    shards = golden("lit/transformers-sharded")
    del shards["model-00003-of-00005.safetensors"]
    hub.add("o/m", shards)
    message = failure("o/m", progress=False)
    assert "names files that the repository lacks: model-00003-of-00005.safetensors" in message


def test_index_with_a_path_out_of_the_folder(hub: FakeHub, cache: Path) -> None:
    index = json.dumps({"weight_map": {"a": "../../../../evil.safetensors"}}).encode()
    hub.add("o/m", {"model.safetensors.index.json": index})
    assert "do not trust" in failure("o/m", progress=False)
    assert not [r for r in hub.requests if "evil" in r.path]


def test_repository_without_weights(hub: FakeHub) -> None:
    hub.add("o/m", {"config.json": b"{}", "pytorch_model.bin": b""})
    message = failure("o/m", progress=False)
    assert "o/m on 127.0.0.1" in message
    assert "pickles are never read" in message
    assert hub.downloaded() == []


def test_revisions(hub: FakeHub) -> None:
    name = "large-patch14-224"
    hub_id, commit = f"apple/aimv2-{name}", OFFICIAL[name].original_revision
    hub.add(hub_id, golden("vision-absolute/transformers"))
    hub.add(hub_id, golden("vision-absolute/original"), commit=commit, revision="x")
    hub.add(hub_id, golden("vision-absolute/timm"), commit="c" * 40, revision="refs/pr/1")
    assert resolve(name, revision="original", progress=False).folder.name == commit
    assert resolve(name, revision="refs/pr/1", progress=False).folder.name == "c" * 40
    assert resolve(name, progress=False).folder.name == "a" * 40
    for revision, expected in (("original", commit), ("refs/pr/1", "c" * 40), (None, "a" * 40)):
        files = resolve(name, revision=revision, local_files_only=True)
        assert files.folder.name == expected


@pytest.mark.parametrize(
    "revision", ["", "..", "../../x", "/x", "a b", "a\0", "x" * 300, "a\\b", 3]
)
def test_strange_revisions(revision: str, hub: FakeHub) -> None:
    assert "cannot be a branch" in failure("o/m", revision=revision)
    assert hub.requests == []


def test_moved_branch_gives_the_new_commit(hub: FakeHub) -> None:
    hub.add("o/m", golden("vision-absolute/transformers"), commit="1" * 40)
    resolve("o/m", progress=False)
    hub.add("o/m", golden("vision-native/transformers"), commit="2" * 40)
    files = resolve("o/m", progress=False)
    assert files.folder.name == "2" * 40
    expected = golden("vision-native/transformers")["model.safetensors"]
    assert files.weights[0].read_bytes() == expected
    assert resolve("o/m", local_files_only=True) == files


def test_cache_dir_and_is_cached(hub: FakeHub, tmp_path: Path, cache: Path) -> None:
    hub.add("o/m", golden("lit/transformers-sharded"))
    elsewhere = tmp_path / "else where"
    assert not is_cached("o/m", cache_dir=elsewhere)
    files = resolve("o/m", cache_dir=elsewhere, progress=False)
    assert files.folder.is_relative_to(elsewhere)
    assert is_cached("o/m", cache_dir=elsewhere)
    assert not is_cached("o/m")
    assert not cache.exists()
    hub.requests.clear()
    (files.folder / "model-00002-of-00005.safetensors").unlink()
    assert not is_cached("o/m", cache_dir=elsewhere)
    assert hub.requests == []


def test_token_goes_to_the_hub_and_not_to_its_storage(hub: FakeHub) -> None:
    hub.add("o/m", golden("lit/transformers"))
    resolve("o/m", token="hf_secret", progress=False)
    for request in hub.requests:
        expected = None if request.path.startswith("/cdn/") else "Bearer hf_secret"
        assert request.authorization == expected, request


def test_stored_token_is_used_and_can_be_declined(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_stored\n")
    hub.add("o/m", golden("lit/transformers"))
    resolve("o/m", token=False, cache_dir=tmp_path / "one", progress=False)
    assert {r.authorization for r in hub.requests} == {None}
    resolve("o/m", cache_dir=tmp_path / "two", progress=False)
    assert {r.authorization for r in hub.requests} == {None, "Bearer hf_stored"}


def test_progress_bars_hidden_for_one_call_only(
    hub: FakeHub, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_POSITION", "-1")  # shows the bars although this is no terminal
    hub.add("o/m", golden("lit/transformers"))
    resolve("o/m", progress=False)
    assert "model.safetensors" not in capfd.readouterr().err
    assert not are_progress_bars_disabled()
    resolve("o/m", cache_dir=tmp_path / "again")
    assert "model.safetensors" in capfd.readouterr().err
    huggingface_hub.utils.disable_progress_bars()
    try:
        resolve("o/m", progress=False)
        assert are_progress_bars_disabled()
    finally:
        huggingface_hub.utils.enable_progress_bars()


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("pattern", "fault", "said"),
    [
        ("/api/", {"status": 403}, ["denies access", "HTTP 403", "hf auth login"]),
        ("/api/", {"status": 404}, ["does not have o/m (HTTP 404)"]),
        ("/api/", {"status": 401, "headers": {"X-Error-Message":
            "Invalid credentials in Authorization header"}}, ["does not accept the token"]),
        ("/api/", {"status": 429, "headers": {"Retry-After": "1"}}, ["asks too often"]),
        ("/api/", {"status": 500}, ["HTTP 500", "try again later"]),
        ("/api/", {"status": 503}, ["HTTP 503", "try again later"]),
        ("/api/", {"status": 418}, ["refuses", "HTTP 418"]),
        ("/api/", {"status": 403, "headers": {"X-Error-Message":
            "Access to this resource is disabled."}}, ["has been disabled"]),
        ("/api/", {"body": b"<html>Please log in"}, ["not as the Hugging Face hub does"]),
        ("/api/", {"body": b"[]"}, ["not as the Hugging Face hub does"]),
        ("/api/", {"body": b"{}"}, ["not as the Hugging Face hub does"]),
        ("/api/", {"body": b'{"id": "o/m", "sha": "../..", "siblings": []}'}, ["not as the Hug"]),
        ("HEAD .*config.json", {"status": 500}, ["config.json of o/m (HTTP 500)"]),
        ("HEAD .*config.json", {"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}},
            ["does not have config.json of o/m (HTTP 404)"]),
        ("HEAD .*config.json", {"body": b"hello"}, ["not as the Hugging Face hub does"]),
        ("HEAD .*model.safetensors", {"body": b"hello"}, ["not as the Hugging Face hub does"]),
        ("HEAD .*model.safetensors", {"status": 500}, ["model.safetensors of o/m (HTTP 500)"]),
        ("HEAD .*model.safetensors", {"status": 403, "headers": {"X-Error-Code": "GatedRepo"}},
            ["o/m is gated", "accept its licence at", "hf auth login", "token="]),
        ("/cdn/", {"status": 500}, ["model.safetensors of o/m (HTTP 500)"]),
        ("/cdn/", {"status": 403}, ["denies access to model.safetensors of o/m"]),
        ("/cdn/", {"status": 404}, ["does not have model.safetensors of o/m"]),
    ],
)  # fmt: skip
def test_refusals(
    pattern: str, fault: dict[str, object], said: list[str], hub: FakeHub, cache: Path
) -> None:
    hub.add("o/m", golden("lit/transformers"))
    hub.fail(pattern, **fault)
    message = failure("o/m", token="hf_secret", progress=False)
    for part in said:
        assert part in message
    assert "secret" not in message
    assert "do-not-show" not in message
    assert not is_cached("o/m")
    hub.faults.clear()
    assert resolve("o/m", progress=False).weights[0].exists()


def test_unknown_repository(hub: FakeHub) -> None:
    message = failure("apple/aimv2-large-patch14-448-lit", progress=False)
    assert "has no model apple/aimv2-large-patch14-448-lit" in message
    assert "did you mean large-patch14-224-lit or large-patch14-448 or" in message
    assert "if it is private, log in" in failure("some/body", progress=False)


def test_unknown_revision(hub: FakeHub) -> None:
    hub.add("o/m", golden("lit/transformers"))
    resolve("o/m", progress=False)
    assert "o/m has no revision 'v9'" in failure("o/m", revision="v9", progress=False)


def test_token_true_without_login(hub: FakeHub) -> None:
    assert "nobody is logged in" in failure("o/m", token=True, progress=False)


@pytest.mark.parametrize("token", ["", "hf_secret\n", "hf secret", "hf_sécret"])
def test_token_that_cannot_be_sent(token: str, hub: FakeHub) -> None:
    message = failure("o/m", token=token)
    assert message.startswith("token= is empty or holds")
    assert "cret" not in message


# ---------------------------------------------------------------------------- no network


def test_offline_without_a_copy(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    message = failure("o/m", local_files_only=True)
    assert message.startswith("local_files_only=True was passed, and the cache")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert failure("o/m").startswith("HF_HUB_OFFLINE is set, and the cache")
    assert hub.requests == []


def test_offline_with_a_copy(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(LIT, everything())
    files = resolve(LIT, progress=False)
    hub.requests.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve(LIT, local_files_only=True) == files
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert resolve(LIT) == files
    assert hub.requests == []


def test_half_a_copy_is_no_copy(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/m", golden("lit/transformers-sharded"))
    hub.fail("/cdn/.*00004", status=500)
    failure("o/m", progress=False)
    assert "no complete copy" in failure("o/m", local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "no complete copy" in failure("o/m")


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429}, {"body": b"<html>"}])
def test_hub_is_down_and_the_copy_is_used_with_a_warning(
    fault: dict[str, object], hub: FakeHub
) -> None:
    hub.add("o/m", golden("lit/transformers"), commit="1" * 40)
    files = resolve("o/m", progress=False)
    hub.fail("/api/", **fault)
    with pytest.warns(AIMv2Warning, match="Using the copy in the cache .commit 111111111111") as w:
        assert resolve("o/m", progress=False) == files
    assert w[0].filename == __file__  # points at the caller


def test_branch_that_the_hub_has_deleted(hub: FakeHub) -> None:
    hub.add("o/m", golden("lit/transformers"), revision="dev")
    resolve("o/m", revision="dev", progress=False)
    del hub.repos["o/m"]["dev"]
    assert "o/m has no revision 'dev'" in failure("o/m", revision="dev", progress=False)
    assert resolve("o/m", revision="dev", local_files_only=True).weights[0].exists()


def test_old_commit_does_not_stand_in_for_one_that_broke(hub: FakeHub) -> None:
    hub.add("o/m", golden("vision-absolute/transformers"), commit="1" * 40)
    resolve("o/m", progress=False)
    hub.add("o/m", golden("vision-native/transformers"), commit="2" * 40)
    hub.fail("/cdn/", cut=0)
    assert "run it again" in failure("o/m", progress=False)
    assert resolve("o/m", local_files_only=True).folder.name == "1" * 40


def test_no_connection(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/m", golden("lit/transformers"))
    files = resolve("o/m", progress=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://user:hf_secret@127.0.0.1:9")
    with pytest.warns(AIMv2Warning, match="no connection to 127.0.0.1:9 for o/m"):
        assert resolve("o/m", progress=False) == files
    message = failure("o/other", progress=False)
    assert "no connection to 127.0.0.1:9 for o/other" in message
    assert "HF_ENDPOINT" in message
    assert "secret" not in message


def test_listing_is_not_waited_for_without_end(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("o/m", golden("lit/transformers"))
    resolve("o/m", progress=False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    hub.fail("/api/", body=b"{}", headers={"Content-Length": "1000"})
    began = time.monotonic()
    with pytest.warns(AIMv2Warning, match="no connection"):
        resolve("o/m", progress=False)
    assert time.monotonic() - began < 3


# ---------------------------------------------------------------------------- broken downloads


def partial_files(cache: Path) -> list[Path]:
    return list(cache.glob("**/*.incomplete"))


def test_cut_connection_then_resume(hub: FakeHub, cache: Path) -> None:
    hub.add("o/m", golden("lit/transformers"))
    hub.fail("/cdn/", cut=100_000, times=1)
    hub.fail("/cdn/", cut=0, times=10**9)
    message = failure("o/m", progress=False)
    assert "broke while model.safetensors of o/m was on its way" in message
    assert "98.30 kB of 297.79 kB have arrived and are kept" in message  # whole chunks of 4096
    assert "run it again, the download resumes" in message
    assert "do-not-show" not in message
    (partial,) = partial_files(cache)
    kept = partial.stat().st_size
    assert kept == 98304
    assert not is_cached("o/m")
    assert not list(cache.glob("**/model.safetensors"))
    hub.faults.clear()
    hub.requests.clear()
    files = resolve("o/m", progress=False)
    assert [r.range for r in hub.large("model.safetensors")] == [f"bytes={kept}-"]
    assert files.weights[0].read_bytes() == golden("lit/transformers")["model.safetensors"]
    assert partial_files(cache) == []


@pytest.mark.skipif(
    int(huggingface_hub.__version__.partition(".")[0]) < 2,
    reason="older versions of the library leave it to the next call",
)
def test_short_cuts_are_resumed_within_one_call(hub: FakeHub) -> None:
    hub.add("o/m", golden("lit/transformers"))
    hub.fail("/cdn/", cut=100_000, times=2)
    files = resolve("o/m", progress=False)
    assert [r.range for r in hub.large("model.safetensors")] == [
        None, "bytes=98304-", "bytes=196608-",
    ]  # fmt: skip
    assert files.weights[0].read_bytes() == golden("lit/transformers")["model.safetensors"]


def test_sharded_resume_fetches_only_what_lacks(hub: FakeHub) -> None:
    hub.add("o/m", golden("lit/transformers-sharded"))
    hub.fail("/cdn/.*00003", cut=20_000, times=1)
    hub.fail("/cdn/.*00003", cut=0)
    failure("o/m", progress=False)
    hub.faults.clear()
    hub.requests.clear()
    files = resolve("o/m", progress=False)
    assert hub.downloaded() == [f"model-{i:05}-of-00005.safetensors" for i in (3, 4, 5)]
    assert hub.large("model-00003-of-00005.safetensors")[0].range == "bytes=16384-"
    for name, data in golden("lit/transformers-sharded").items():
        assert (files.folder / name).read_bytes() == data


def test_server_that_sends_less_than_announced(hub: FakeHub, cache: Path) -> None:
    data = golden("lit/transformers")
    hub.add("o/m", data)
    hub.fail("/cdn/", body=data["model.safetensors"][:50_000], times=1)
    hub.fail("/cdn/", body=b"")
    assert "50.00 kB of 297.79 kB have arrived" in failure("o/m", progress=False)
    assert not is_cached("o/m")
    hub.faults.clear()
    hub.requests.clear()
    files = resolve("o/m", progress=False)
    assert hub.large("model.safetensors")[0].range == "bytes=50000-"
    assert files.weights[0].read_bytes() == data["model.safetensors"]


def test_server_that_ignores_the_range(hub: FakeHub) -> None:
    data = golden("lit/transformers")
    hub.add("o/m", data)
    hub.fail("/cdn/", cut=100_000, times=1)
    hub.fail("/cdn/", cut=0)
    failure("o/m", progress=False)
    hub.faults.clear()
    hub.ranges = False
    for _ in range(2):  # an old library starts over at the second try only
        try:
            files = resolve("o/m", progress=False)
            break
        except CheckpointError:
            continue
    assert files.weights[0].read_bytes() == data["model.safetensors"]


def test_damaged_on_the_way(hub: FakeHub, cache: Path) -> None:
    data = golden("lit/transformers")
    hub.add("o/m", data)
    weights = data["model.safetensors"]
    hub.fail("/cdn/", body=weights[:1000] + b"\0" + weights[1001:], times=1)
    assert weights[1000] != 0
    message = failure("o/m", progress=False)
    assert "damaged on its way" in message
    assert not is_cached("o/m")
    assert partial_files(cache) == []
    assert resolve("o/m", progress=False).weights[0].read_bytes() == weights


def test_partial_file_that_is_too_long_is_begun_anew(hub: FakeHub, cache: Path) -> None:
    hub.add("o/m", golden("lit/transformers"))
    hub.fail("/cdn/", cut=100_000, times=1)
    hub.fail("/cdn/", cut=0)
    failure("o/m", progress=False)
    hub.faults.clear()
    hub.requests.clear()
    partial_files(cache)[0].write_bytes(b"x" * 400_000)
    resolve("o/m", progress=False)
    assert [r.range for r in hub.large("model.safetensors")] == [None]


def breaking_off(kept: int, error: BaseException) -> Callable[..., None]:
    """The library's http_get, writing to a file that fails beyond so many bytes."""
    real = file_download.http_get

    class Small:
        def __init__(self, file: BinaryIO) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            if self.file.tell() >= kept:
                raise error
            return self.file.write(data)

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    return lambda url, file, **arguments: real(url, Small(file), **arguments)


def test_interrupt_passes_and_keeps_what_has_arrived(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("o/m", golden("lit/transformers"))
    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", breaking_off(102_400, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            resolve("o/m", progress=False)
    assert not are_progress_bars_disabled()
    assert partial_files(cache)[0].stat().st_size == 102_400
    resolve("o/m", progress=False)
    assert hub.large("model.safetensors")[-1].range == "bytes=102400-"


def test_several_at_once_download_once(hub: FakeHub) -> None:
    hub.add("o/m", golden("lit/transformers"))
    with ThreadPoolExecutor(4) as pool:
        tries = [pool.submit(resolve, "o/m") for _ in range(4)]
        (files,) = {attempt.result() for attempt in tries}
    assert files.weights[0].read_bytes() == golden("lit/transformers")["model.safetensors"]
    assert len(hub.large("model.safetensors")) == 1


# ---------------------------------------------------------------------------- the disk's limits


def test_disk_too_small_is_found_before_the_download(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("o/m", golden("lit/transformers"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage())
    message = failure("o/m", progress=False)
    assert "the disk is full: o/m needs 297.79 kB more in" in message
    assert str(cache) in message
    assert "cache_dir=" in message
    assert hub.large("model.safetensors") == []


class Usage:
    free = 200_000
    used = total = 0


def test_disk_fills_up_during_the_download(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("o/m", golden("lit/transformers"))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", breaking_off(102_400, full))
        message = failure("o/m", progress=False)
    assert "the disk is full: model.safetensors of o/m needs" in message
    assert "102.40 kB of it are kept" in message
    assert "195.39 kB more" in message
    assert not is_cached("o/m")
    resolve("o/m", progress=False)
    assert hub.large("model.safetensors")[-1].range == "bytes=102400-"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs the rights of POSIX systems")
def test_cache_without_permission_to_write(hub: FakeHub) -> None:
    hub.add("o/m", golden("lit/transformers"))
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        locked = Path(name) / "locked"
        locked.mkdir(0o555)
        said = as_nobody(lambda: resolve("o/m", cache_dir=locked, token=False))
    assert said.startswith(f"CheckpointError: cannot use {locked}")
    assert "Permission denied" in said
    assert "pass cache_dir=" in said


def test_cache_that_may_only_be_read_serves(hub: FakeHub) -> None:
    hub.add("o/m", golden("lit/transformers"))
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        resolve("o/m", cache_dir=name, progress=False)
        again = lambda: resolve("o/m", cache_dir=name, token=False).weights[0].exists()  # noqa: E731
        said = as_nobody(again)
    assert said == "no error: True"


def test_cache_is_a_file(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("o/m", golden("lit/transformers"))
    (tmp_path / "file").write_text("")
    message = failure("o/m", cache_dir=tmp_path / "file", progress=False)
    assert "cannot use" in message
    assert str(tmp_path / "file") in message


# ---------------------------------------------------------------------------- the environment


def run(code: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Another Python with its own environment, nothing of which comes from this one's HF_*."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, "-c", f"from aimv2_np.hub import resolve\n{code}"],
        env=kept | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(code: str, environment: dict[str, str]) -> tuple[str, str]:
    out, err = run(code, environment).communicate(timeout=60)
    return out.strip(), err


def test_environment(tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path / "home")}
    code = "print(resolve('o/m').folder)"
    with serve() as fake:
        fake.add("o/m", everything(), commit="5" * 40)
        online = home | {"HF_ENDPOINT": fake.endpoint, "HF_TOKEN": "hf_environment"}
        folder, _ = output(code, online)
    assert Path(folder) == tmp_path / "home/hub/models--o--m/snapshots" / ("5" * 40)
    sent = {r.authorization for r in fake.requests if "/o/m/" in r.path}
    assert sent == {"Bearer hf_environment"}
    # now the server is gone
    quiet, err = output(code, home | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": fake.endpoint})
    assert quiet == folder
    assert err == ""
    began = time.monotonic()
    warned, err = output(code, online)
    assert warned == folder
    assert "AIMv2Warning: no connection to 127.0.0.1" in err
    assert time.monotonic() - began < 15
    _, err = output(code, {"HF_HOME": str(tmp_path / "new"), "HF_ENDPOINT": fake.endpoint})
    assert err.splitlines()[-1].startswith("aimv2_np.errors.CheckpointError: no connection to")
    assert "During handling" not in err


def test_malformed_environment() -> None:
    _, err = output("resolve('o/m')", {"HF_ENDPOINT": "http://hub:port"})
    assert err.splitlines()[-1].startswith("aimv2_np.errors.CheckpointError: ")


def test_killed_process_resumes(tmp_path: Path) -> None:
    """A process that dies without any chance to tidy up, and a file of more than one real chunk."""
    data = os.urandom(1 << 20) * 25
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
    code = "print(resolve('o/m', progress=False).weights[0])"
    with serve() as fake:
        environment["HF_ENDPOINT"] = fake.endpoint
        fake.add("o/m", {"model.safetensors": data})
        fake.fail("/cdn/", stall=22 << 20, times=1)
        process = run(code, environment)
        deadline = time.monotonic() + 20
        while sum(p.stat().st_size for p in partial_files(tmp_path)) < 20 << 20:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.communicate()
        kept = partial_files(tmp_path)[0].stat().st_size
        assert not is_cached("o/m", cache_dir=tmp_path / "hub")
        path, err = output(code, environment)
        assert Path(path).read_bytes() == data, err
        ranges = [r.range for r in fake.large("model.safetensors")]
    assert ranges == [None, f"bytes={kept}-"]
