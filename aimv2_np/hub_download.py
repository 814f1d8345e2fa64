"""The Hugging Face hub: from a repository's id to a folder in the cache that holds its files.

The library `huggingface_hub` owns the cache, the token, the endpoint and the progress bars; here is
what it leaves to its callers. Which files: only those that a model needs, all of one commit. And
resuming: since version 2 the library deletes a file whose download broke, which would cost up to
11 GB for every second try. So weights are appended to `blobs/<etag>.incomplete` by the library's
own `http_get`, and get their real name only when their size and their SHA-256 are right. That is
plain HTTP even where the hub offers Xet, whose downloads cannot be resumed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .errors import AIMv2Error, CheckpointError, warn
from .hub_errors import Ask, NotTheHub, explain, library, no_room

__all__ = [
    "PICKLES",
    "SIDE_FILES",
    "WEIGHTS",
    "cached_snapshot",
    "choose_weights",
    "fetch_snapshot",
]

INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", INDEX, "mlx_model.safetensors", "flax_model.msgpack")
SIDE_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_SHARD = re.compile(r".*-\d+-of-\d+\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")


# ---------------------------------------------------------------------------- which files


def choose_weights(names: Iterable[str], where: str) -> str:
    """The one weights file to read among the names of a folder's or a repository's files.

    Raises:
        CheckpointError: there is none, or several of which none has a name that says its role.
    """
    names = sorted(names)
    for name in WEIGHTS:
        if name in names:
            return name
    safe = [n for n in names if n.endswith(".safetensors") and "/" not in n]
    others = [name for name in safe if not _SHARD.fullmatch(name)]
    if len(others) == 1:
        return others[0]
    if others:
        raise CheckpointError(
            f"{where} holds several weights files, none of them named model.safetensors: "
            f"{', '.join(others)}; pass the path of the file that you mean"
        )
    raise CheckpointError(_no_weights(where, names, bool(safe)))


def _no_weights(where: str, names: Sequence[str], shards: bool) -> str:
    reasons = ""
    if any(name.endswith(PICKLES) for name in names):
        reasons += "; pickles are never read, because reading one can run any program"
    if shards:
        reasons += f"; its shards need their {INDEX}"
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return (
        f"{where} holds no weights: expected {', '.join(WEIGHTS)} or one other .safetensors file, "
        f"found {shown or 'nothing'}{reasons}"
    )


def _shards(folder: Path, weights: str) -> Sequence[str]:
    """The files that hold the weights themselves."""
    if not weights.endswith(".index.json"):
        return (weights,)
    from .weights.index import shard_names

    return shard_names(folder / weights)


# ---------------------------------------------------------------------------- the cache


@dataclass
class _Repo:
    """One request: a repository at a revision, and the place of its files."""

    hub_id: str
    revision: str
    cache_dir: Path
    commit: str = ""
    sizes: dict[str, int | None] = field(default_factory=dict)  # file name -> bytes, if known

    @property
    def storage(self) -> Path:
        """Its folder in the cache, whose layout the library documents: blobs, refs, snapshots."""
        return self.cache_dir / f"models--{self.hub_id.replace('/', '--')}"

    @property
    def snapshot(self) -> Path:
        return self.storage / "snapshots" / self.commit


def _repo(hub_id: str, revision: str | None, cache_dir: str | os.PathLike[str] | None) -> _Repo:
    folder = library().constants.HF_HUB_CACHE if cache_dir is None else os.fspath(cache_dir)
    return _Repo(hub_id, revision or "main", Path(os.path.abspath(os.path.expanduser(folder))))


def cached_snapshot(
    hub_id: str, *, revision: str | None = None, cache_dir: str | os.PathLike[str] | None = None
) -> Path | None:
    """The cached folder of a model whose weights are all there, else None; needs no network."""
    repo = _repo(hub_id, revision, cache_dir)
    try:
        reference = repo.storage / "refs" / repo.revision
        repo.commit = reference.read_text(errors="replace").strip()
    except (OSError, ValueError):
        repo.commit = repo.revision  # no branch or tag that is known here: perhaps a commit
    if not re.fullmatch(r"\w[\w.-]*", repo.commit):
        return None
    try:
        names = {entry.name for entry in os.scandir(repo.snapshot) if entry.is_file()}
        shards = _shards(repo.snapshot, choose_weights(names, str(repo.snapshot)))
    except (OSError, CheckpointError):
        return None
    return repo.snapshot if names.issuperset(shards) else None


# ---------------------------------------------------------------------------- fetching


def fetch_snapshot(
    hub_id: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    progress: bool = True,
) -> Path:
    """Bring the files of a model that are not in the cache yet into it; gives their folder.

    When the hub cannot even say which files there are, a complete copy of the same revision in the
    cache is used, with a warning; without one when the user asked to stay offline.

    Raises:
        CheckpointError: no network and no copy, no such model, no access, no room, a broken
            connection; the message has the remedy.
    """
    if isinstance(token, str) and not re.fullmatch(r"[!-~]+", token):
        raise CheckpointError("token= is empty or holds a character that no token has")
    repo = _repo(hub_id, revision, cache_dir)
    ask = Ask(hub_id, repo.revision, repo.cache_dir)
    cached = cached_snapshot(hub_id, revision=revision, cache_dir=cache_dir)
    if local_files_only or library().constants.HF_HUB_OFFLINE:
        why = "local_files_only=True was passed" if local_files_only else "HF_HUB_OFFLINE is set"
        if cached is None:
            raise CheckpointError(ask.not_cached(why))
        return cached
    try:
        with _progress_bars(progress):
            _list(repo, token)
            _download(repo, ask, token)
            return repo.snapshot
    except AIMv2Error:
        raise
    except Exception as error:
        failure = error
    # raised out here, so that no traceback can show what the library's texts hold
    return _instead(cached, failure, ask)


def _instead(cached: Path | None, failure: Exception, ask: Ask) -> Path:
    """The cached copy where the hub could not be asked, else our error."""
    message = explain(failure, ask)
    if message is None:
        raise failure
    denied = isinstance(failure, library().errors.RevisionNotFoundError)
    if cached is None or denied or ask.file:
        raise CheckpointError(message)
    warn(
        f"{message}\nUsing the copy in the cache (commit {cached.name[:12]}); to do so without "
        "asking the hub, pass local_files_only=True or set HF_HUB_OFFLINE=1"
    )
    return cached


def _list(repo: _Repo, token: str | bool | None) -> None:
    """Ask the hub for the revision's commit and its files: one request."""
    hub = library()
    try:
        info = hub.HfApi().model_info(
            repo.hub_id,
            revision=repo.revision,
            timeout=hub.constants.HF_HUB_ETAG_TIMEOUT,
            files_metadata=True,
            token=token,
        )
        repo.commit = info.sha
        repo.sizes = {file.rfilename: file.size for file in info.siblings}
    except hub.errors.HfHubHTTPError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError):
        raise NotTheHub from None
    if not re.fullmatch(r"\w[\w.-]*", repo.commit or ""):
        raise NotTheHub


def _download(repo: _Repo, ask: Ask, token: str | bool | None) -> None:
    """Bring the needed files of the commit, small ones first."""
    weights = choose_weights(repo.sizes, f"{repo.hub_id} on {ask.host}")
    small = [name for name in SIDE_FILES if name in repo.sizes]
    if weights == INDEX:
        small.append(INDEX)
    for ask.file in small:
        _link(repo, ask.file, token)
    ask.file = weights
    shards = _shards(repo.snapshot, weights)
    lacking = [name for name in shards if name not in repo.sizes]
    if lacking:
        raise CheckpointError(
            f"{INDEX} of {repo.hub_id} names files that the repository lacks: {', '.join(lacking)}"
        )
    _check_room(repo, ask, shards)
    for ask.file in shards:
        if not (repo.snapshot / ask.file).is_file():
            _bring_blob(repo, ask, token)
            _link(repo, ask.file, token)
    _remember(repo)


def _link(repo: _Repo, name: str, token: str | bool | None) -> None:
    """Let the library put a file into the snapshot, downloading it where its blob is not there."""
    library().hf_hub_download(
        repo.hub_id,
        name,
        revision=repo.commit,
        cache_dir=repo.cache_dir,
        token=token,
    )


def _bring_blob(repo: _Repo, ask: Ask, token: str | bool | None) -> None:
    """Download a file's content to blobs/<etag>, going on where an earlier try stopped."""
    hub = library()
    name = ask.file or ""
    url = hub.hf_hub_url(repo.hub_id, name, revision=repo.commit)
    about = hub.get_hf_file_metadata(url, token=token)
    if not about.etag or not re.fullmatch(r"\w[\w.-]*", about.etag):
        raise NotTheHub  # it would become a file's name
    blob = repo.storage / "blobs" / about.etag
    lock = repo.cache_dir / ".locks" / repo.storage.name / f"{about.etag}.lock"
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with hub.utils.WeakFileLock(lock):  # the library's own: nobody else appends meanwhile
        if blob.exists():
            return
        ask.size, ask.partial = about.size, blob.with_name(f"{about.etag}.incomplete")
        if ask.size is not None and ask.received > ask.size:
            ask.partial.unlink()
        with ask.partial.open("ab") as file:
            hub.file_download.http_get(
                url,
                file,
                resume_size=ask.received,
                headers=hub.utils.build_hf_headers(token=token),
                expected_size=ask.size,
                displayed_filename=name,
            )
        _check_content(ask, about.etag)
        ask.partial.replace(blob)
    ask.partial = None


def _check_content(ask: Ask, etag: str) -> None:
    """Compare with the SHA-256 that the hub gives as etag of a large file."""
    if ask.partial is None or not _SHA256.fullmatch(etag):
        return
    digest = hashlib.sha256()
    with ask.partial.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != etag:
        ask.partial.unlink()
        raise CheckpointError(
            f"{ask.what} was damaged on its way: its SHA-256 is not the one that {ask.host} "
            "announced; what had arrived is deleted, run it again"
        )


def _check_room(repo: _Repo, ask: Ask, shards: Sequence[str]) -> None:
    """Refuse before the download what cannot fit; the disk may still fill up meanwhile."""
    missing = [repo.sizes[name] or 0 for name in shards if not (repo.snapshot / name).is_file()]
    repo.storage.mkdir(parents=True, exist_ok=True)
    begun = sum(path.stat().st_size for path in repo.storage.glob("blobs/*.incomplete"))
    needed = sum(missing) - begun
    if needed > shutil.disk_usage(repo.storage).free:
        raise CheckpointError(no_room(ask, repo.hub_id, needed))


def _remember(repo: _Repo) -> None:
    """Note the branch's commit for offline use, once all its files are there."""
    reference = repo.storage / "refs" / repo.revision
    if repo.revision == repo.commit:
        return
    with suppress(OSError):  # a cache that may only be read: everything was in it already
        if reference.is_file() and reference.read_text() == repo.commit:
            return
        reference.parent.mkdir(parents=True, exist_ok=True)
        new = reference.with_name(f"{reference.name}.{uuid.uuid4().hex[:8]}.tmp")
        new.write_text(repo.commit)
        new.replace(reference)


@contextmanager
def _progress_bars(wanted: bool) -> Iterator[None]:
    """Hide the library's progress bars for a while, unless they are hidden anyway."""
    utils = library().utils
    if wanted or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()
