"""What went wrong with the hub, in one sentence with its remedy.

`huggingface_hub` and its HTTP library raise some thirty types of exceptions; they are judged by
type and status, never by their texts. Their texts are not repeated either: these can hold signed
addresses, the password of a proxy, or the token itself.
"""

from __future__ import annotations

import difflib
import errno
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .config import OFFICIAL
from .errors import CheckpointError

__all__ = ["Ask", "NotTheHub", "explain", "library", "nearest_official", "no_room", "readable"]


class NotTheHub(Exception):
    """Something answered, but not as a hub does; never leaves this package."""


@dataclass
class Ask:
    """What was asked of the hub, and how far it has come: what a message needs to know."""

    hub_id: str
    revision: str
    cache_dir: Path
    file: str | None = None  # the file in work; None: still asking which files there are
    size: int | None = None  # its size in bytes, once known
    partial: Path | None = None  # where it is being written

    @property
    def host(self) -> str:
        """The hub's host, without the user and password that HF_ENDPOINT may hold."""
        endpoint: str = library().constants.ENDPOINT
        parts = urlsplit(endpoint)
        return parts.netloc.rpartition("@")[2] or parts.path

    @property
    def what(self) -> str:
        """The model, or the file of it, that was wanted."""
        model = self.hub_id if self.revision == "main" else f"{self.hub_id} at {self.revision}"
        return f"{self.file} of {model}" if self.file else model

    @property
    def received(self) -> int:
        """How many bytes of the file in work lie on the disk."""
        try:
            return self.partial.stat().st_size if self.partial else 0
        except OSError:
            return 0

    def not_cached(self, why: str) -> str:
        """The message for a model that may not be fetched and is not in the cache."""
        return (
            f"{why}, and the cache {self.cache_dir} holds no complete copy of {self.what}; "
            "load it once with a network, or pass the cache_dir= that holds it"
        )


def library() -> Any:
    """The package huggingface_hub, imported when it is needed: that takes a while.

    Raises:
        CheckpointError: it cannot start, because an HF_ variable of the environment is malformed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.file_download
        import huggingface_hub.utils
    except ValueError:
        raise CheckpointError(
            "huggingface_hub cannot start: a variable of the environment is malformed; "
            "look at HF_ENDPOINT, HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT"
        ) from None
    return huggingface_hub


def readable(count: int) -> str:
    """A number of bytes for people: '1.24 GB'."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"


def nearest_official(name: str) -> str:
    """A hint with the official names that resemble a name; empty where none does."""
    key = name.lower().removeprefix("apple/").removeprefix("aimv2-")
    known = {official.lower(): official for official in OFFICIAL}
    nearest = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(known[n] for n in nearest)}?" if nearest else ""


def no_room(ask: Ask, what: str, needed: int | None) -> str:
    """The message for a full disk; `needed` bytes are still to come, where that is known."""
    how_much = f"{readable(needed)} more" if needed else "more room"
    kept = f" ({readable(ask.received)} of it are kept)" if ask.received else ""
    return (
        f"the disk is full: {what} needs {how_much} in {ask.cache_dir}{kept}; free some space, "
        "or pass cache_dir= (or set HF_HOME) to use another disk, then run it again"
    )


def explain(error: BaseException, ask: Ask) -> str | None:
    """The message for an exception of the hub's library, else None: then it is a bug of ours."""
    errors = library().errors
    if isinstance(error, NotTheHub | errors.FileMetadataError):
        return (
            f"{ask.host} answered, but not as the Hugging Face hub does, when asked for "
            f"{ask.what}; is a proxy or a log-in page in between, or HF_ENDPOINT wrong?"
        )
    if isinstance(error, errors.LocalTokenNotFoundError):
        return "token=True was passed, but nobody is logged in here: run 'hf auth login'"
    if isinstance(error, errors.LocalEntryNotFoundError):  # the library's wrapper of the reason
        return explain(error.__cause__ or NotTheHub(), ask)
    network = _network_errors()
    if isinstance(error, network) and getattr(error, "response", None) is not None:
        return _refused(error, ask)
    if isinstance(error, (*network, ConnectionError, TimeoutError)):
        return _disconnected(error, ask)
    if isinstance(error, OSError):
        return _local(error, ask)
    return None


def _network_errors() -> tuple[type[BaseException], ...]:
    """The base classes of the HTTP library below, which differs between the hub's versions."""
    base = library().errors.HTTPError  # requests (0.x), httpx (1.x), httpx2 (2.x)
    http = importlib.import_module(base.__module__.partition(".")[0])
    found = (getattr(http, name, None) for name in ("RequestException", "InvalidURL"))
    return (base, *(kind for kind in found if kind is not None))


def _refused(error: Any, ask: Ask) -> str:
    """The hub answered with an error."""
    errors = library().errors
    page = f"https://{ask.host}/{ask.hub_id}"
    log_in = "log in with 'hf auth login' or pass token="
    if isinstance(error, errors.GatedRepoError):
        return f"{ask.hub_id} is gated: accept its licence at {page}, then {log_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{ask.hub_id} has no revision {ask.revision!r}; its page {page} lists them"
    if isinstance(error, errors.DisabledRepoError):
        return f"{ask.hub_id} has been disabled by its owner or by the hub; see {page}"
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = nearest_official(ask.hub_id) or f"; if it is private, {log_in}"
        return f"{ask.host} has no model {ask.hub_id}, or does not show it to you{hint}"
    status = error.response.status_code
    if status == 404:
        return f"{ask.host} does not have {ask.what} (HTTP 404)"
    if status == 401:
        return f"{ask.host} does not accept the token: {log_in} a valid one (HTTP 401)"
    if status == 403:
        return f"{ask.host} denies access to {ask.what} (HTTP 403): {log_in} one with read access"
    if status == 429:
        return (
            f"{ask.host} says that this address asks too often (HTTP 429): wait some minutes, "
            f"or {log_in} for a higher limit, then run it again"
        )
    fault = "fails at the moment" if status >= 500 else "refuses"
    return f"{ask.host} {fault} when asked for {ask.what} (HTTP {status}); try again later"


def _disconnected(error: BaseException, ask: Ask) -> str:
    """No connection, or one that broke."""
    kind = type(error).__name__
    if ask.partial is None:
        return (
            f"no connection to {ask.host} for {ask.what} ({kind}); check the network, the proxy "
            "settings and HF_ENDPOINT, or pass the path of a folder that holds the model"
        )
    total = f" of {readable(ask.size)}" if ask.size else ""
    return (
        f"the connection to {ask.host} broke while {ask.what} was on its way ({kind}): "
        f"{readable(ask.received)}{total} have arrived and are kept; "
        "run it again, the download resumes there"
    )


def _local(error: OSError, ask: Ask) -> str:
    """The operating system refused, or the hub's library gave up with a plain OSError."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return no_room(ask, ask.what, ask.size - ask.received if ask.size else None)
    if error.errno is None:  # http_get: the number of bytes is not the announced one
        return _disconnected(error, ask)
    where = error.filename or ask.cache_dir
    reason = error.strerror or type(error).__name__
    return (
        f"cannot use {where} for {ask.what} ({reason}); repair its permissions, "
        "or pass cache_dir= (or set HF_HOME) to use another folder"
    )
