"""Malformed checkpoints, one a line: the files, and what the error must name."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
from byte_builders import entry, leaf, pack, raw_safetensors, safetensors_bytes, stored

# Original keys of a vision encoder: most of a file's keys must be known for it to be read at all.
NORM = "trunk.post_trunk_norm.weight"
BIAS = "preprocessor.patchifier.proj.bias"
ONE = entry("F32", [2], 0, 8)


class Case(NamedTuple):
    """`write` puts the files into a folder and returns the paths to read."""

    name: str
    write: Callable[[Path], list[Path]]
    file: str  # the file that the message must name
    phrase: str  # what it must say
    key: str | None = None  # the key that it must name


def one_file(name: str, content: bytes) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        (folder / name).write_bytes(content)
        return [folder / name]

    return write


def st(name: str, content: bytes, phrase: str, key: str | None = None) -> Case:
    return Case(name, one_file("model.safetensors", content), "model.safetensors", phrase, key)


def header(name: str, tensors: dict[str, Any], data: int, phrase: str, key: str | None) -> Case:
    return st(name, safetensors_bytes(tensors, b"\0" * data), phrase, key)


def mp(name: str, content: bytes, phrase: str, key: str | None = None) -> Case:
    return Case(name, one_file("flax_model.msgpack", content), "flax_model.msgpack", phrase, key)


# ---------------------------------------------------------------------------- the file itself


def _zip_pickle() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}, 2))
    return buffer.getvalue()


def _folder(folder: Path) -> list[Path]:
    (folder / "model.safetensors").mkdir()
    return [folder / "model.safetensors"]


def _fifo(folder: Path) -> list[Path]:
    os.mkfifo(folder / "model.safetensors")
    return [folder / "model.safetensors"]


def _link_to(target: str) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        (folder / "model.safetensors").symlink_to(target)
        return [folder / "model.safetensors"]

    return write


LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
GOOD = safetensors_bytes({NORM: ONE}, b"\0" * 8)

FILES = [
    st("empty file", b"", "empty"),
    st("one byte", b"\x10", "too short"),
    st("seven bytes", b"\x10" + b"\0" * 6, "too short"),
    st("length only", struct.pack("<Q", 0), "too short"),
    st("zipped pickle", _zip_pickle(), "never unpickles"),
    st("pickle protocol 2", pickle.dumps({"a": [1, 2, 3]}, 2), "never unpickles"),
    st("pickle protocol 4", pickle.dumps({"a": [1, 2, 3]}, 4), "never unpickles"),
    st("Git LFS pointer", LFS, "git lfs pull"),
    st("web page", b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    st("web page, lower case", b"\n<html>gated</html>", "web page"),
    st("XML", b"<?xml version='1.0'?><Error>AccessDenied</Error>", "web page"),
    mp("msgpack: zipped pickle", _zip_pickle(), "never unpickles"),
    mp("msgpack: pickle", pickle.dumps({}, 2), "never unpickles"),
    mp("msgpack: Git LFS pointer", LFS, "git lfs pull"),
    mp("msgpack: empty", b"", "empty"),
    Case("missing", lambda folder: [folder / "no.safetensors"], "no.safetensors", "no such file"),
    Case("folder", _folder, "model.safetensors", "is a folder"),
    Case("named pipe", _fifo, "model.safetensors", "not a regular file"),
    Case("endless device", _link_to("/dev/zero"), "model.safetensors", "not a regular file"),
    Case("broken link", _link_to("nowhere"), "model.safetensors", "no such file"),
    Case("link to itself", _link_to("model.safetensors"), "model.safetensors", "cannot be read"),
    Case("null byte", lambda folder: [folder / "a\0.safetensors"], "a\\x00", "cannot be read"),
    Case("long name", lambda folder: [folder / ("a" * 300 + ".safetensors")], "aa", "cannot be"),
    Case("pickle by name", one_file("pytorch_model.bin", b"x"), "pytorch_model.bin", "expected a"),
    Case("no files", lambda folder: [], "", "no files"),
]

# ---------------------------------------------------------------------------- the header


def raw(name: str, text: bytes, phrase: str, key: str | None = None) -> Case:
    return st(name, raw_safetensors(text, b"\0" * 8), phrase, key)


_ONE = json.dumps(ONE).encode()
OTHERS = {"fc.weight": ONE, "fc.bias": entry("F32", [2], 8, 16), NORM: entry("F32", [2], 16, 24)}

HEADERS = [
    st("length beyond the file", raw_safetensors(b"{}", length=1000), "the file has"),
    st("length beyond the limit", raw_safetensors(b"{}", length=10**9), "at most 100000000"),
    st("largest length", raw_safetensors(b"{}", length=2**64 - 1), "not a safetensors"),
    st("cut in the header", GOOD[:40], "incomplete"),
    st("cut in the data", GOOD[:-1], "beyond the end", NORM),
    st("header length 0", raw_safetensors(b"", b"{}", 0), "not valid JSON"),
    raw("not JSON", b"{nonsense}", "not valid JSON"),
    raw("cut JSON", b'{"' + NORM.encode() + b'": {"dtype":', "not valid JSON"),
    raw("a list", b"[1, 2, 3]", "does not begin with '{'"),
    raw("space in front", b" {}", "does not begin with '{'"),
    raw("null bytes after", b"{}\0\0", "not valid JSON"),
    raw("not UTF-8", b'{"\xff\xfe": 1}', "not UTF-8"),
    raw("key twice", b'{"dup": %b, "dup": %b}' % (_ONE, _ONE), "occurs twice", "dup"),
    raw("field twice", b'{"a": {"dtype": "F32", "dtype": "F16"}}', "occurs twice", "dtype"),
    raw("deeply nested", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested too deeply"),
    raw("deep list", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    raw("NaN", b'{"a": NaN}', "NaN is not JSON"),
    raw("infinity", b'{"a": {"dtype": "F32", "shape": [-Infinity]}}', "not JSON"),
    raw("5000 digits", b'{"a": {"shape": [' + b"9" * 5000 + b"]}}", "5000 digits"),
    header("no tensors", {}, 0, "holds no tensors", None),
    header("metadata only", {"__metadata__": {"a": "b"}}, 0, "holds no tensors", None),
    header("metadata: number", {"__metadata__": {"a": 1}, NORM: ONE}, 8, "strings", "__metadata__"),
    header("metadata: list", {"__metadata__": [], NORM: ONE}, 8, "strings", "__metadata__"),
    header("entry is a number", {NORM: 1}, 0, "expected an object", NORM),
    header("entry is null", {NORM: None}, 0, "expected an object", NORM),
    header("entry is a list", {NORM: ["F32", [2], [0, 8]]}, 8, "expected an object", NORM),
    header("no dtype", {NORM: {"shape": [2], "data_offsets": [0, 8]}}, 8, "nothing", NORM),
    header("dtype number", {NORM: entry(32, [2], 0, 8)}, 8, "unknown dtype 32", NORM),
    header("dtype list", {NORM: entry(["F32"], [2], 0, 8)}, 8, "unknown dtype", NORM),
    header("dtype unknown", {NORM: entry("F31", [2], 0, 8)}, 8, "unknown dtype 'F31'", NORM),
    header("dtype lower case", {NORM: entry("f32", [2], 0, 8)}, 8, "unknown dtype 'f32'", NORM),
    header("dtype of torch", {NORM: entry("torch.float32", [2], 0, 8)}, 8, "torch.float32", NORM),
    header("no shape", {NORM: {"dtype": "F32", "data_offsets": [0, 8]}}, 8, "shape must", NORM),
    header("shape number", {NORM: entry("F32", 2, 0, 8)}, 8, "shape must be a list", NORM),
    header("shape string", {NORM: entry("F32", ["2"], 0, 8)}, 8, "shape must be a list", NORM),
    header("shape float", {NORM: entry("F32", [2.0], 0, 8)}, 8, "shape must be a list", NORM),
    header("shape bool", {NORM: entry("F32", [True, 2], 0, 8)}, 8, "shape must be a list", NORM),
    header("shape null", {NORM: entry("F32", None, 0, 8)}, 8, "shape must be a list", NORM),
    header("shape negative", {NORM: entry("F32", [-2, -1], 0, 8)}, 8, "non-negative", NORM),
    header("shape too large", {NORM: entry("F32", [2**62, 2], 0, 8)}, 8, "any memory", NORM),
    header("shape wraps to 8", {NORM: entry("F32", [2**63 + 1, 2], 0, 8)}, 8, "any memory", NORM),
    header("0 times huge", {NORM: entry("F32", [0, 2**63], 0, 0)}, 0, "any memory", NORM),
    header("shape: 100 axes", {NORM: entry("F32", [1] * 100 + [2], 0, 8)}, 8, "101 axes", NORM),
    header("half a byte", {NORM: entry("F4", [3], 0, 2)}, 2, "whole bytes", NORM),
    header("no offsets", {NORM: {"dtype": "F32", "shape": [2]}}, 8, "data_offsets must", NORM),
    header("offsets number", {NORM: ONE | {"data_offsets": 8}}, 8, "data_offsets must", NORM),
    header("one offset", {NORM: ONE | {"data_offsets": [8]}}, 8, "[begin, end]", NORM),
    header("three offsets", {NORM: ONE | {"data_offsets": [0, 4, 8]}}, 8, "[begin, end]", NORM),
    header("offsets swapped", {NORM: entry("F32", [2], 8, 0)}, 8, "begin <= end", NORM),
    header("offset negative", {NORM: entry("F32", [2], -8, 0)}, 8, "non-negative", NORM),
    header("offset bool", {NORM: entry("F32", [2], False, 8)}, 8, "non-negative", NORM),
    header("offset float", {NORM: entry("F32", [2], 0, 8.0)}, 8, "non-negative", NORM),
    header("offset outside", {NORM: entry("F32", [2], 0, 2**63)}, 8, "beyond the end", NORM),
    header("size too small", {NORM: entry("F32", [3], 0, 8)}, 8, "takes 12 bytes", NORM),
    header("size too large", {NORM: entry("F16", [2], 0, 8)}, 8, "takes 4 bytes", NORM),
    header("scalar of 8 bytes", {NORM: entry("F32", [], 0, 8)}, 8, "takes 4 bytes", NORM),
    header("overlap", {BIAS: ONE, NORM: entry("F32", [2], 4, 12)}, 12, "overlaps", NORM),
    header("same bytes", {BIAS: ONE, NORM: ONE}, 8, "overlaps", NORM),
    header("hole", {BIAS: ONE, NORM: entry("F32", [2], 12, 20)}, 20, "belong to no tensor", NORM),
    header("hole in front", {NORM: entry("F32", [2], 4, 12)}, 12, "4 bytes before", NORM),
    header("trailing bytes", {NORM: ONE}, 9, "1 bytes after the last", None),
    header("int8 parameter", {NORM: entry("I8", [8], 0, 8)}, 8, "quantised", NORM),
    header("float8 parameter", {NORM: entry("F8_E4M3", [8], 0, 8)}, 8, "F8_E4M3", NORM),
    header("int64 parameter", {NORM: entry("I64", [1], 0, 8)}, 8, "is I64", NORM),
    header("bool parameter", {NORM: entry("BOOL", [8], 0, 8)}, 8, "is BOOL", NORM),
    header("another model", {"fc.weight": ONE}, 8, "not an AIMv2 checkpoint", "fc.weight"),
    header("mostly another model", OTHERS, 24, "1 of its 3 keys are known", "fc.weight"),
    header("block number", {"trunk.blocks.1000.norm_1.weight": ONE}, 8, "not an AIMv2", "1000"),
    header("no number", {"trunk.blocks.{i}.attn.qkv.weight": ONE}, 8, "not an AIMv2", "{i}"),
    header("empty key", {"": ONE}, 8, "not an AIMv2 checkpoint", "''"),
    header("lone surrogate", {"\ud800": ONE}, 8, "not an AIMv2 checkpoint", "'\\ud800'"),
]

# ---------------------------------------------------------------------------- the index

INDEX = "model.safetensors.index.json"
SHARD_1, SHARD_2 = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def shards(index: Any, first: list[str], second: list[str]) -> Callable[[Path], list[Path]]:
    """An index (bytes, or to be written as JSON) and two shards that hold the given keys."""

    def write(folder: Path) -> list[Path]:
        content = index if isinstance(index, bytes) else json.dumps(index).encode()
        (folder / INDEX).write_bytes(content)
        for name, keys in ((SHARD_1, first), (SHARD_2, second)):
            if keys:
                arrays = {key: np.zeros(2, np.float32) for key in keys}
                (folder / name).write_bytes(stored(arrays))
        return [folder / INDEX]

    return write


def idx(name: str, index: Any, phrase: str, key: str | None = None) -> Case:
    return Case(f"index: {name}", shards(index, [NORM], [BIAS]), INDEX, phrase, key)


def names(name: Any) -> dict[str, Any]:
    return {"weight_map": {NORM: name, BIAS: SHARD_2}}


PLAIN = "is not the plain name"
RIGHT = {"weight_map": {NORM: SHARD_1, BIAS: SHARD_2}}


def _shard_folder(folder: Path) -> list[Path]:
    (folder / SHARD_1).mkdir()
    return shards(RIGHT, [], [BIAS])(folder)


def _index_folder(folder: Path) -> list[Path]:
    (folder / INDEX).mkdir()
    return [folder / INDEX]


def _two_shards_one_key(folder: Path) -> list[Path]:
    shards({}, [NORM], [NORM])(folder)
    return [folder / SHARD_1, folder / SHARD_2]


def _msgpack_twice(folder: Path) -> list[Path]:
    path = one_file("flax_model.msgpack", pack({}))(folder)[0]
    return [path, path]


def _index_and_shard(folder: Path) -> list[Path]:
    return [*shards(RIGHT, [NORM], [BIAS])(folder), folder / SHARD_1]


INDEXES = [
    idx("empty", b"", "empty"),
    idx("not JSON", b"{", "not valid JSON"),
    idx("not UTF-8", b'{"weight_map": {"\xff": "a"}}', "not UTF-8"),
    idx("UTF-16", json.dumps(RIGHT).encode("utf-16"), "not UTF-8"),
    idx("a list", [], "expected a JSON object, found list"),
    idx("deeply nested", b'{"weight_map":' + b"[" * 100_000, "nested too deeply"),
    idx("key twice", b'{"weight_map": {"dup": "a", "dup": "b"}}', "occurs twice", "dup"),
    idx("Git LFS pointer", LFS, "git lfs pull"),
    idx("web page", b"<!doctype html>", "web page"),
    idx("no weight_map", {"metadata": {}}, "'weight_map' must be", "weight_map"),
    idx("weight_map list", {"weight_map": [NORM]}, "'weight_map' must be", "weight_map"),
    idx("weight_map null", {"weight_map": None}, "'weight_map' must be", "weight_map"),
    idx("weight_map empty", {"weight_map": {}}, "'weight_map' is empty", "weight_map"),
    idx("number as name", names(1), "expected a file name, found 1", NORM),
    idx("null as name", names(None), "expected a file name, found None", NORM),
    idx("list as name", names([SHARD_1]), "expected a file name, found [", NORM),
    idx("absolute", names("/etc/model.safetensors"), PLAIN, NORM),
    idx("parent", names("../model.safetensors"), PLAIN, NORM),
    idx("sub-folder", names("sub/model.safetensors"), PLAIN, NORM),
    idx("dot slash", names("./" + SHARD_1), PLAIN, NORM),
    idx("backslashes", names("..\\model.safetensors"), PLAIN, NORM),
    idx("drive", names("C:model.safetensors"), PLAIN, NORM),
    idx("UNC path", names("\\\\host\\share\\model.safetensors"), PLAIN, NORM),
    idx("empty name", names(""), PLAIN, NORM),
    idx("two dots", names(".."), PLAIN, NORM),
    idx("hidden file", names(".safetensors"), PLAIN, NORM),
    idx("null byte", names("a\0.safetensors"), PLAIN, NORM),
    idx("newline", names("a\n.safetensors"), PLAIN, NORM),
    idx("surrogate", names("\ud800.safetensors"), PLAIN, NORM),
    idx("too long", names("a" * 300 + ".safetensors"), PLAIN, NORM),
    idx("a pickle", names("pytorch_model.bin"), PLAIN, NORM),
    idx("missing shard", names("model-00009.safetensors"), "missing from the folder", "00009"),
    idx("unlisted key", {"weight_map": {NORM: SHARD_1, NORM[:-1]: SHARD_2}}, "not in the", BIAS),
    Case("index: absent key", shards(RIGHT, [NORM], ["x"]), INDEX, "it is in no shard", BIAS),
    Case("index: swapped", shards(RIGHT, [BIAS], [NORM]), INDEX, f"it is in {SHARD_2}", NORM),
    Case("index: twice", shards(RIGHT, [NORM], [BIAS, NORM]), SHARD_2, "in one shard", NORM),
    Case("shards: twice", _two_shards_one_key, SHARD_2, "must be in one shard", NORM),
    Case("shard is a folder", _shard_folder, SHARD_1, "is a folder"),
    Case("index is a folder", _index_folder, INDEX, "is a folder"),
    Case("index: missing", lambda folder: [folder / INDEX], INDEX, "no such file"),
    Case("index and a shard", _index_and_shard, INDEX, "give the index alone"),
    Case("two msgpack files", _msgpack_twice, "flax_model.msgpack", "give it alone"),
]

# ---------------------------------------------------------------------------- msgpack

_LEAF = leaf(np.zeros(2, np.float32))


def array(name: str, payload: Any, phrase: str) -> Case:
    """A file whose one array has this payload, to be packed."""
    content = pack({"a": {"b": msgpack.ExtType(1, pack(payload))}})
    return mp(f"msgpack array: {name}", content, phrase, "a.b")


_DEEP: Any = _LEAF
for _ in range(40):
    _DEEP = {"d": _DEEP}

MSGPACK = [
    mp("msgpack: a list", pack([1]), "expected a dictionary"),
    mp("msgpack: an array", pack(_LEAF), "expected a dictionary"),
    mp("msgpack: null", pack(None), "expected a dictionary"),
    mp("msgpack: reserved byte", b"\xc1", "0xc1"),
    mp("msgpack: no entries", pack({}), "holds no arrays"),
    mp("msgpack: empty dictionaries", pack({"a": {}, "b": {"c": {}}}), "holds no arrays"),
    mp("msgpack: number leaf", pack({"a": {"b": 1.5}}), "a dictionary or an array", "a.b"),
    mp("msgpack: string leaf", pack({"a": "text"}), "a dictionary or an array", "'a'"),
    mp("msgpack: list leaf", pack({"a": [_LEAF]}), "a dictionary or an array", "'a'"),
    mp("msgpack: bytes leaf", pack({"a": b"1"}), "a dictionary or an array", "'a'"),
    mp("msgpack: number key", pack({1: _LEAF}), "a string as key"),
    mp("msgpack: bytes key", pack({b"a": _LEAF}), "a string as key"),
    mp("msgpack: key not UTF-8", b"\x81\xa1\xff\x80", "is not UTF-8"),
    mp("msgpack: key twice", b"\x82\xa1a" + pack(_LEAF) + b"\xa1a" + pack(_LEAF), "twice", "'a'"),
    mp("msgpack: dot in key", pack({"a.b": _LEAF, "a": {"b": _LEAF}}), "twice", "a.b"),
    mp("msgpack: long key", pack({"k" * 2000: _LEAF}), "2000 bytes"),
    mp("msgpack: deep", pack(_DEEP), "nested more than 32", "d.d.d"),
    mp("msgpack: very deep", b"\x81\xa1d" * 100_000, "nested more than 32", "d.d.d"),
    mp("msgpack: many", b"\xde\xff\xff" + b"\xa1a\xde\xff\xff" * 9 + b"\xa0\x80" * 99_992, "more"),
    mp("msgpack: trailing", pack({"a": _LEAF}) + b"\0", "1 bytes follow"),
    mp("msgpack: other extension", pack({"a": msgpack.ExtType(2, b"xx")}), "type 2", "'a'"),
    mp("msgpack: timestamp", pack({"a": msgpack.Timestamp(1)}), "type -1", "'a'"),
    mp("msgpack: cut map", b"\x82\xa1a" + pack(_LEAF), "the file ends"),
    mp("msgpack: huge map", b"\xdf\xff\xff\xff\xff", "the file ends"),
    mp("msgpack: huge key", b"\x81\xdb\xff\xff\xff\xff", "4294967295 bytes"),
    mp("msgpack: huge extension", b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", "the file ends", "'a'"),
    mp("msgpack: cut length", b"\x81\xa1a\xc9\xff\xff", "the file ends", "'a'"),
    mp("msgpack: no value", b"\x81\xa1a", "the file ends", "'a'"),
    mp("msgpack: cut array", pack({"a": {"b": _LEAF}})[:-1], "the file ends", "a.b"),
    mp("msgpack: huge shape", b"\x81\xa1a\xc7\x06\x01\x93\xdd\xff\xff\xff\xff", "axes", "'a'"),
    mp("msgpack: other model", pack({"a": {"b": _LEAF}}), "not an AIMv2", "a.b"),
    mp("msgpack: chunked", pack({"a": {"__msgpack_chunked_array__": True}}), "a dictionary", "a."),
    array("a dictionary", {"shape": [2]}, "[shape, dtype, bytes]"),
    array("two entries", [[2], "float32"], "must be [shape, dtype, bytes]"),
    array("four entries", [[2], "float32", b"\0" * 8, 1], "must be [shape, dtype, bytes]"),
    array("shape number", [2, "float32", b"\0" * 8], "expected a shape"),
    array("shape negative", [[-2], "float32", b"\0" * 8], "non-negative size"),
    array("shape float", [[2.0], "float32", b"\0" * 8], "non-negative size"),
    array("shape bool", [[True, 2], "float32", b"\0" * 8], "non-negative size"),
    array("shape huge", [[2**63, 2**63], "float32", b"\0" * 8], "any memory"),
    array("shape long", [[1] * 40, "float32", b"\0" * 4], "40 axes"),
    array("dtype int8", [[8], "int8", b"\0" * 8], "dtype 'int8'"),
    array("dtype number", [[2], 32, b"\0" * 8], "a dtype name"),
    array("dtype unknown", [[2], "float31", b"\0" * 8], "dtype 'float31'"),
    array("data too short", [[2], "float32", b"\0" * 7], "takes 8 bytes, the file has 7"),
    array("data too long", [[2], "float32", b"\0" * 9], "takes 8 bytes, the file has 9"),
    array("data a string", [[2], "float32", "\0" * 8], "the array's bytes"),
    mp(
        "msgpack array: spare bytes",
        pack({"a": msgpack.ExtType(1, _LEAF.data + b"\0\0")}),
        "should end at byte",
        "'a'",
    ),
    mp(
        "msgpack array: longer than its extension",
        pack({"a": msgpack.ExtType(1, _LEAF.data[:-2])}) + b"\0\0",
        "should end at byte",
        "'a'",
    ),
]

CASES = [*FILES, *HEADERS, *INDEXES, *MSGPACK]
