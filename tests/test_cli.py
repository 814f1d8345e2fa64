import json
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from golden_cases import CAT as CAT_PATH
from golden_cases import RANDOM_LIT
from safetensors.numpy import load_file, save_file

import aimv2_np
from aimv2_np import cli_grammar, cli_screen, pipelines
from aimv2_np.cli import main
from aimv2_np.config import OFFICIAL
from aimv2_np.errors import AIMv2Error

GOLDEN = Path(__file__).parent / "golden"
CAT = str(CAT_PATH)
NATIVE = str(GOLDEN / "vision-native" / "transformers")
NOTE = (
    "aimv2-np: note: emoji-lit knows emoji drawings, not photographs; for photographs add "
    "--model large-patch14-224-lit\n"
)
COMMANDS = (
    "demo", "classify", "embed", "explain", "models", "info", "trace", "warmup", "doctor",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    """No test may reach the network or somebody's cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("AIMV2_NP_DEBUG", raising=False)


@pytest.fixture
def run(capsys):
    """Runs a command line; gives its exit code, standard output and standard error."""

    def run(*argv):
        code = main([str(argument) for argument in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def model():
    return aimv2_np.load("emoji-lit")


def one_error(err):
    """The message of an output that is one error and nothing else but notes."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if not line.startswith("aimv2-np: note: ")]
    assert lines, "there is no error"
    assert lines[0].startswith("aimv2-np: error: ")
    assert all(line.startswith("  ") for line in lines[1:])
    return "\n".join(lines)


# ---------------------------------------------------------------------------- the program itself


def test_version(run):
    assert run("--version") == (0, f"aimv2-np {aimv2_np.__version__}\n", "")


def test_without_a_command_the_help_is_shown(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "aimv2-np demo" in err
    assert all(f"    {command} " in err for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_of_the_command(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    examples = out.partition("examples:\n")[2].splitlines()
    assert examples
    assert all(line.startswith(f"  aimv2-np {command}") for line in examples)
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_of_the_help_can_be_parsed(run, command, capsys):
    parser = cli_grammar.make_parser()
    with pytest.raises(SystemExit):
        parser.parse_args([command, "--help"])
    examples = capsys.readouterr().out.partition("examples:\n")[2].splitlines()
    for line in examples:
        words = shlex.split(re.split(r"[|>]", line)[0])[1:]
        assert parser.parse_args(words).command == command


@pytest.mark.parametrize(
    "argv",
    [
        ("clasify",),
        ("classify",),
        ("classify", CAT),
        ("classify", "--texts", "a", "b"),
        ("classify", CAT, "--texts"),
        ("classify", CAT, "--texts", "a", "--prompt", "a photo"),
        ("classify", CAT, "--texts", "a", "--top", "-1"),
        ("classify", CAT, "--texts", "a", "--num-heads", "3x"),
        ("classify", CAT, "--texts", "a", "--num-heads", "0"),
        ("embed", CAT),
        ("embed", "--out", "x.npz"),
        ("embed", CAT, "--out", "x.npz", "--pool", "mean", "--patches"),
        ("embed", CAT, "--out", "x.npz", "--pool", "max"),
        ("info",),
        ("trace", "emoji-lit"),
        ("trace", "emoji-lit", "--out", "x.safetensors"),
        ("trace", "emoji-lit", "--image", CAT),
        ("explain", CAT),
        ("explain", "--out", "x.html"),
        ("explain", CAT, "--out", "x.html", "--blocks", "-1"),
        ("explain", CAT, "--out", "x.html", "--prompt", "a photo"),
        ("doctor", "cough"),
        ("--vers",),
    ],
)
def test_wrong_usage_ends_with_2_and_points_to_the_help(run, argv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("aimv2-np: error: ")
    assert "--help' shows" in err
    assert len(err.splitlines()) <= 4
    assert not list(tmp_path.iterdir())


def test_an_error_is_one_line(run):
    code, out, err = run("info", "no/such/folder")
    assert (code, out) == (1, "")
    assert one_error(err) == "aimv2-np: error: there is no such file or folder: no/such/folder"


def test_the_lines_of_a_long_error_are_indented(run):
    code, _, err = run("info", "large-patch14-225")
    assert code == 1
    assert "did you mean large-patch14-224" in one_error(err)


def test_errors_speak_of_options(run, tmp_path):
    code, _, err = run("info", "large-patch14-224", "--offline", "--cache-dir", tmp_path)
    assert code == 1
    assert "--offline was given" in err
    assert "the --cache-dir that holds it" in err
    assert not re.search(r"\w=", err.replace(str(tmp_path), ""))


def test_errors_speak_of_the_option_revision(run):
    code, _, err = run("info", "emoji-lit", "--revision", "v2")
    assert code == 1
    assert "--revision v2 was given" in one_error(err)
    assert "leave --revision out" in err


def test_debug_shows_the_traceback(run, monkeypatch):
    monkeypatch.setenv("AIMV2_NP_DEBUG", "1")
    code, _, err = run("info", "no/such/folder")
    assert code == 1
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("aimv2-np: error: ")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 141, ""),
        (MemoryError(), 1, "error: out of memory\n"),
        (MemoryError("8 GiB"), 1, "error: out of memory: 8 GiB\n"),
        (ModuleNotFoundError("No module named 'PIL'"), 1, "'aimv2-np doctor' checks"),
        (ZeroDivisionError("oops"), 1, "unexpected ZeroDivisionError: oops\n  this is a bug"),
        (AIMv2Error("a\nb"), 1, "aimv2-np: error: a\n  b\n"),
    ],
)
def test_every_end_is_orderly(run, monkeypatch, error, code, words):
    def fail(args):
        raise error

    monkeypatch.setattr("aimv2_np.cli_demo.demo", fail)
    got, out, err = run("demo")
    assert (got, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    assert bool(err) == bool(words)


def test_warnings_are_one_line_without_a_source(run):
    code, _, err = run("classify", CAT, "--texts", "a " * 40, "b", "--quiet")
    assert code == 0
    assert len(err.splitlines()) == 1
    assert err.startswith("aimv2-np: warning: cut to 32 tokens: text 1 by ")


# ---------------------------------------------------------------------------- demo, classify


def test_demo(run, model):
    code, out, err = run("demo")
    assert (code, err) == (0, "")
    words = [name for name in aimv2_np.samples() if not name.startswith("scene-")]
    result = model.classify(aimv2_np.samples()["pizza"], words)
    shown = [(w, float(p)) for w, p in re.findall(r"^  (\w+) +(\d+\.\d) %", out, re.MULTILINE)]
    best = result.top(6)[0]
    assert [word for word, _ in shown] == [word for word, _ in best]
    assert [p for _, p in shown] == pytest.approx([100 * p for _, p in best], abs=0.051)
    assert "pizza.png, drawn by OpenMoji" in out
    assert "never trained on" in " ".join(out.split())
    assert re.search(r"computed in \d\.\d\d s", out)
    assert "--model large-patch14-224-lit" in out


def test_demo_of_another_sample(run):
    code, out, err = run("demo", "--sample", "scene-cat-and-pizza")
    assert (code, err) == (0, "")
    assert "\nscene-cat-and-pizza.png: " in out
    code, out, err = run("demo", "--sample", "piza")
    assert (code, out) == (2, "")
    assert "there is no sample 'piza'; --list names" in err


def test_demo_lists_the_samples(run):
    assert run("demo", "--list") == (0, "\n".join(aimv2_np.samples()) + "\n", "")


def test_demo_quiet_leaves_the_advice_out(run):
    assert "aimv2-np classify" not in run("demo", "--quiet")[1]


def test_what_the_demo_advises_works(run, tmp_path, monkeypatch):
    """Every command without a network as it is printed, and the lines of Python."""
    monkeypatch.chdir(tmp_path)
    _, out, _ = run("demo")
    offline = out.partition("Try next")[2].partition("For photographs")[0]
    commands = re.findall(r"^  aimv2-np (.*)$", offline, re.MULTILINE)
    assert [command.split()[0] for command in commands] == [
        *("demo", "classify", "trace", "info", "doctor"),
    ]
    for command in commands:
        code, _, err = run(*shlex.split(command))
        assert (code, "error" in err) == (0, False), command
    python = offline.partition("# in Python\n")[2].partition("\n\n")[0]
    exec(textwrap.dedent(python), {})


def test_classify_says_so_only_where_no_model_was_chosen(run):
    options = ("classify", CAT, "--texts", "a", "b")
    assert run(*options)[2] == NOTE
    assert run(*options, "--quiet")[2] == ""
    assert run(*options, "--model", "emoji-lit")[2] == ""
    code, _, err = run(*options, "--model", "")
    assert code == 1
    assert "'' cannot be the name of a model" in one_error(err)


def test_classify_prints_what_the_library_computes(run, model):
    code, out, err = run("classify", CAT, "--texts", "a cat", "a dog")
    (expected,) = model.classify([CAT], ["a cat", "a dog"]).top()
    lines = [f"  {label}  {100 * p:5.1f} %" for label, p in expected]
    assert code == 0
    assert [line[: len(lines[0])] for line in out.splitlines()] == [CAT[: len(lines[0])], *lines]
    assert err == NOTE


def test_the_default_prompt_is_that_of_classify() -> None:
    args = cli_grammar.make_parser().parse_args(["classify", "cat.png", "--texts", "cat"])
    assert args.prompt == pipelines.PROMPT


def test_classify_json(run, model):
    texts = ["a cat", "a dog", "tea"]
    code, out, err = run(
        "classify", CAT, CAT, "--texts", *texts, "--json", "--prompt", "a {}", "-q"
    )
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["model"], found["prompt"]) == ("emoji-lit", "a {}")
    assert [result["image"] for result in found["results"]] == [CAT, CAT]
    (expected,) = model.classify([CAT], texts, prompt="a {}").top()
    for result in found["results"]:
        assert result["labels"] == [label for label, _ in expected]
        np.testing.assert_allclose(result["probabilities"], [p for _, p in expected], rtol=1e-5)


def test_classify_in_float64(run):
    _, out, _ = run("classify", CAT, "--texts", "a cat", "a dog", "--json", "--dtype", "float64")
    found = json.loads(out)
    assert found["dtype"] == "float64"
    assert sum(found["results"][0]["probabilities"]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("top", "shown", "rest"), [("2", 2, "10 more"), ("0", 12, ""), ("99", 12, "")]
)
def test_classify_top(run, top, shown, rest):
    texts = list("abcdefghijkl")
    code, out, _ = run("classify", CAT, "--texts", *texts, "--top", top)
    lines = out.splitlines()[1:]
    assert code == 0
    assert sum(" % " in line or line.endswith("%") for line in lines if "…" not in line) == shown
    assert (rest in lines[-1]) if rest else len(lines) == shown


def test_classify_top_in_json(run):
    _, out, _ = run("classify", CAT, "--texts", "a", "b", "c", "--top", "2", "--json")
    assert len(json.loads(out)["results"][0]["labels"]) == 2


def test_classify_shows_ten_of_many(run):
    _, out, _ = run("classify", CAT, "--texts", *"abcdefghijkl")
    shares = [float(p) for p in re.findall(r"(\d+\.\d) %", out)]
    assert len(shares) == 11
    assert "… 2 more, " in out
    assert sum(shares) == pytest.approx(100, abs=0.6)


def test_classify_reads_texts_from_files(run, tmp_path, monkeypatch):
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffa cat\r\n\n  a dog \n".encode())
    _, out, _ = run("classify", CAT, "--texts", "tea", "--texts-file", file, "--json")
    assert sorted(json.loads(out)["results"][0]["labels"]) == ["a cat", "a dog", "tea"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\n \n", "holds no text"), (b"a\xff", "byte 1 is not UTF-8"), (None, "No such file")],
)
def test_classify_refuses_unusable_text_files(run, tmp_path, content, words):
    file = tmp_path / "labels.txt"
    if content is not None:
        file.write_bytes(content)
    code, out, err = run("classify", CAT, "--texts-file", file)
    assert (code, out) == (1, "")
    assert words in one_error(err)
    assert str(file) in err


def test_classify_goes_on_after_a_broken_image(run, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(CAT).read_bytes()[:1000])
    code, out, err = run(
        "classify", broken, CAT, tmp_path / "no.png", "--texts", "a", "b", "--json"
    )
    found = json.loads(out)
    assert code == 1
    assert [result["image"] for result in found["results"]] == [CAT]
    assert [e["image"] for e in found["errors"]] == [str(broken), str(tmp_path / "no.png")]
    assert len(re.findall("^aimv2-np: error: ", err, re.MULTILINE)) == 2


def test_classify_refuses_a_vision_only_model(run):
    code, out, err = run("classify", CAT, "--texts", "a", "--model", NATIVE)
    assert (code, out) == (1, "")
    assert "vision-only" in one_error(err)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "float31"])
def test_a_dtype_that_the_backend_lacks(run, dtype):
    options = ("--texts", "a", "--backend", "numpy", "--dtype", dtype)
    code, _, err = run("classify", CAT, *options)
    assert code == 1
    assert f"the numpy backend computes in float32 or float64, not in '{dtype}'" in one_error(err)


def test_classify_with_an_unknown_backend(run):
    code, _, err = run("classify", CAT, "--texts", "a", "--backend", "abacus")
    assert code == 1
    assert "no backend 'abacus'" in one_error(err)


@pytest.mark.parametrize(
    "label", ["", "x\ty", "\x1b[31mred", "日本語", "e\u0301", "🐈‍⬛", "\udc80"]
)
@pytest.mark.filterwarnings("ignore")
def test_any_label_can_be_shown(monkeypatch, label):
    monkeypatch.setenv("COLUMNS", "60")
    lines = cli_screen.ranking([(label, 0.75), ("a cat", 0.25)])
    assert len(lines) == 2
    assert all(c.isprintable() or c == "\u200d" for line in lines for c in line)


def test_bars_and_labels_fit_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = cli_screen.ranking([("word " * 30, 1.0), ("語" * 30, 0.0)])
    assert [cli_screen._width(line) <= 40 for line in lines] == [True, True]
    assert "…  100.0 %  ██████" in lines[0]
    assert lines[1].count("語") < 30
    monkeypatch.delenv("COLUMNS")
    assert "word " * 29 in cli_screen.ranking([("word " * 30, 1.0)])[0]


def test_bars_have_the_length_of_their_fraction():
    assert cli_screen.bar(1.0, 20) == "█" * 20
    assert cli_screen.bar(0.5, 20) == "█" * 10
    assert cli_screen.bar(0.0, 20) == ""
    assert cli_screen.bar(3 / 32, 4) == "▍"  # three eighths of a column


# ---------------------------------------------------------------------------- embed


def test_embed_to_npz(run, tmp_path, model):
    target = tmp_path / "x.npz"
    code, out, err = run("embed", CAT, CAT, "--texts", "a cat", "--out", target)
    assert (code, out) == (0, "")
    assert f"wrote {target}: text_embeds (1, 128), image_embeds (2, 128)" in err
    with np.load(target, allow_pickle=False) as found:
        np.testing.assert_array_equal(found["image_embeds"], model.encode_image([CAT, CAT]))
        np.testing.assert_array_equal(found["text_embeds"], model.encode_text(["a cat"]))
        assert (found["images"].tolist(), found["texts"].tolist()) == ([CAT, CAT], ["a cat"])
        assert found["model"] == "emoji-lit"
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_embed_to_safetensors_with_names(run, tmp_path, model):
    from safetensors import safe_open

    target = tmp_path / "x.safetensors"
    assert run("embed", CAT, "--patches", "--out", target, "-q") == (0, "", "")
    np.testing.assert_array_equal(load_file(target)["patch_features"], model.patch_features([CAT]))
    with safe_open(target, "np") as file:
        assert json.loads(file.metadata()["images"]) == [CAT]
        assert file.metadata()["model"] == "emoji-lit"


def test_embed_texts_alone(run, tmp_path):
    target = tmp_path / "x.npz"
    assert run("embed", "--texts", "a", "b", "--out", target, "-q") == (0, "", "")
    with np.load(target) as found:
        assert set(found) == {"text_embeds", "texts", "model", "backend", "dtype"}


def test_embed_with_a_vision_only_model(run, tmp_path):
    native, target = aimv2_np.load(NATIVE), tmp_path / "x.safetensors"
    options = ("embed", CAT, "--model", NATIVE, "--out", target, "-q")
    code, _, err = run(*options)
    assert code == 1
    assert "--pool mean" in one_error(err)
    assert "--patches" in err
    assert not target.exists()
    assert run(*options, "--pool", "mean")[0] == 0
    expected = native.encode_image([CAT], pool="mean")
    np.testing.assert_array_equal(load_file(target)["image_embeds"], expected)
    assert run(*options, "--patches", "--force")[0] == 0
    found = load_file(target)
    assert set(found) == {"patch_features.0"}
    np.testing.assert_array_equal(found["patch_features.0"], native.patch_features([CAT])[0])


def test_embed_lit_needs_no_pool(run, tmp_path):
    code, _, err = run("embed", CAT, "--pool", "mean", "--out", tmp_path / "x.npz")
    assert code == 1
    assert "leave --pool mean out" in one_error(err)


def test_embed_does_not_overwrite(run, tmp_path):
    target = tmp_path / "x.npz"
    target.write_text("mine")
    code, _, err = run("embed", CAT, "--out", target)
    assert code == 1
    assert "exists already; --force replaces it" in one_error(err)
    assert target.read_text() == "mine"
    assert run("embed", CAT, "--out", target, "--force", "-q")[0] == 0
    assert np.load(target)["image_embeds"].shape == (1, 128)


def test_embed_writes_all_or_nothing(run, tmp_path):
    code, _, err = run("embed", CAT, tmp_path / "no.jpg", "--out", tmp_path / "x.npz")
    assert code == 1
    assert "no.jpg" in one_error(err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.csv", ".npz or .safetensors"),
        ("x", ".npz or .safetensors"),
        ("no/x.npz", "there is no folder"),
        ("folder.npz", "is a folder"),
    ],
)
def test_embed_checks_where_to_write_before_it_works(run, tmp_path, name, words):
    (tmp_path / "folder.npz").mkdir()
    code, _, err = run("embed", "no.jpg", "--model", "no/such/model", "--out", tmp_path / name)
    assert code == 1
    assert words in one_error(err)


def test_embed_reports_a_disk_that_cannot_take_it(run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.savez", full)
    code, _, err = run("embed", CAT, "--out", tmp_path / "x.npz")
    assert code == 1
    assert "No space left on device" in one_error(err)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------- explain


def test_explain_writes_a_page(run, tmp_path):
    page = tmp_path / "cat.html"
    cat = aimv2_np.samples()["cat"]
    code, out, err = run("explain", cat, "--texts", "cat", "dog", "--out", page)
    assert (code, out) == (0, "")
    assert err.startswith(NOTE)
    assert f"wrote {page}: " in err
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "What emoji-lit does with cat.png" in text
    assert list(tmp_path.iterdir()) == [page]


def test_explain_json(run, tmp_path, model):
    page = tmp_path / "cat.html"
    cat = aimv2_np.samples()["cat"]
    code, out, err = run("explain", cat, "--texts", "dog", "cat", "--out", page, "--json", "-q")
    said = json.loads(out)
    assert (code, err) == (0, "")
    assert said["page"] == str(page)
    assert said["bytes"] == page.stat().st_size
    wanted = model.classify(cat, ["dog", "cat"]).top(2)[0]
    found = [(text["label"], text["probability"]) for text in said["texts"]]
    assert [label for label, _ in found] == [label for label, _ in wanted]
    assert [p for _, p in found] == pytest.approx([p for _, p in wanted], rel=1e-3)
    assert np.shape(said["texts"][0]["contributions"]) == (64,)


def test_explain_without_texts_says_what_is_missing(run, tmp_path):
    code, _, err = run("explain", CAT, "--out", tmp_path / "p.html", "--model", RANDOM_LIT)
    assert code == 0
    assert "without --texts it shows no probabilities" in err
    code, _, err = run("explain", CAT, "--out", tmp_path / "q.html", "--model", NATIVE)
    assert code == 0
    assert "--texts" not in err


def test_explain_does_not_overwrite(run, tmp_path):
    page = tmp_path / "cat.html"
    page.write_text("mine")
    words = ("explain", CAT, "--out", page, "--model", NATIVE, "-q")
    code, _, err = run(*words)
    assert code == 1
    assert "exists already; --force replaces it" in one_error(err)
    assert page.read_text() == "mine"
    assert run(*words, "--force") == (0, "", "")
    assert "What" in page.read_text(encoding="utf-8")


def test_explain_frames_the_texts(run, tmp_path, model):
    cat, page = aimv2_np.samples()["cat"], tmp_path / "p.html"
    words = ("explain", cat, "--texts", "dog", "cat", "--out", page, "--json", "-q")
    said = json.loads(run(*words, "--prompt", "{} drawing")[1])
    wanted = model.classify(cat, ["dog", "cat"], prompt="{} drawing").top(2)[0]
    assert said["prompt"] == "{} drawing"
    found = [text["probability"] for text in said["texts"]]
    assert found == pytest.approx([p for _, p in wanted], rel=1e-3)
    plain = model.classify(cat, ["dog", "cat"]).top(2)[0]
    assert found[1] != pytest.approx(plain[1][1], rel=0.005)


def test_explain_keeps_a_file_that_comes_to_exist_meanwhile(run, tmp_path, monkeypatch):
    from aimv2_np import cli_explain

    page, explained = tmp_path / "p.html", cli_explain.explained

    def slow(*args, **kwargs):
        page.write_text("another's")
        return explained(*args, **kwargs)

    monkeypatch.setattr(cli_explain, "explained", slow)
    code, _, err = run("explain", CAT, "--out", page, "--model", NATIVE, "-q")
    assert code == 1
    assert "exists already" in one_error(err)
    assert page.read_text() == "another's"


def test_explain_some_blocks(run, tmp_path):
    words = ("explain", CAT, "--out", tmp_path / "p.html", "--model", NATIVE, "--blocks")
    code, _, err = run(*words, "2")
    assert code == 1
    assert "--blocks takes numbers from 0 to 1, found 2" in one_error(err)
    assert run(*words, "1", "-q")[0] == 0
    assert "Here are blocks 1 of 2." in (tmp_path / "p.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------------------- models, info


def test_models_lists_all(run):
    code, out, err = run("models")
    assert (code, err) == (0, "")
    names = [line.split()[0] for line in out.split("\n\n")[0].splitlines()[1:]]
    assert names == ["emoji-lit", *OFFICIAL]
    assert re.search(
        r"^large-patch14-224-lit +yes +224 +437 M +1024 +24 +1.75 GB", out, re.MULTILINE
    )


def test_models_says_what_is_cached(run, tmp_path):
    folder = tmp_path / "models--apple--aimv2-huge-patch14-336"
    commit = folder / "snapshots" / ("a" * 40)
    commit.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    (commit / "model.safetensors").write_bytes(b"")
    _, out, _ = run("models", "--json", "--cache-dir", tmp_path)
    found = {m["name"]: m for m in json.loads(out)}
    assert [name for name, m in found.items() if m["cached"]] == ["emoji-lit", "huge-patch14-336"]
    assert found["huge-patch14-336"]["download_bytes"] == pytest.approx(2.73e9, rel=2e-3)
    assert found["large-patch14-native"]["image_size"] is None
    assert re.search(r"huge-patch14-336 .*cached$", run("models", "--cache-dir", tmp_path)[1], re.M)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_models_fits_the_terminal(run, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = run("models")
    assert max(map(len, out.splitlines())) <= width
    assert "download" in out.splitlines()[0]


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("transformers", ()),
        ("transformers-sharded", ()),
        ("transformers-bf16", ()),
        ("original", ("--num-heads", "3,2")),
        ("mlx", ("--num-heads", "3,2")),
        ("jax", ("--num-heads", "3,2")),
    ],
)
def test_info_tells_every_layout(run, layout, options):
    code, out, err = run("info", GOLDEN / "lit" / layout, *options, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["layout"] == layout.removesuffix("-bf16")
    assert list(found["stored"]) == ["bfloat16" if "bf16" in layout else "float32"]
    assert found["parameters"] == 73033
    assert found["memory_bytes"] == {"float32": 4 * 73033, "float64": 8 * 73033}
    assert found["nonfinite"] == []
    assert found["config"]["vision"]["num_attention_heads"] == 3


def test_info_on_the_screen(run):
    code, out, _ = run("info", RANDOM_LIT)
    assert code == 0
    for words in (
        "layout     transformers",
        "73,033",
        "no NaN, no Inf",
        "config, preprocessor, tok",
    ):
        assert words in out
    assert re.search(r"blocks\.\{0-1\}\.attn\.qkv\.weight +\(108, 36\)", out)


def test_info_lists_the_keys_of_the_file(run):
    stored = load_file(RANDOM_LIT / "model.safetensors")
    _, out, _ = run("info", RANDOM_LIT, "--keys")
    listed = dict(re.findall(r"^  (\S+) +float32 +(\(.*\))$", out, re.MULTILINE))
    assert listed == {key: str(array.shape) for key, array in stored.items()}
    _, out, _ = run("info", RANDOM_LIT, "--keys", "--json")
    keys = {key["key"]: tuple(key["shape"]) for key in json.loads(out)["keys"]}
    assert keys == {key: array.shape for key, array in stored.items()}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_info_finds_what_is_not_finite(run, tmp_path, value):
    shutil.copytree(RANDOM_LIT, tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    arrays = load_file(file)
    key = "vision_model.encoder.layers.1.ffn.up_proj.weight"
    arrays[key][3, 5] = value
    save_file(arrays, file)
    code, out, _ = run("info", tmp_path / "m")
    assert code == 1
    assert f"NaN or Inf in 1 of 52 tensors: '{key}'" in " ".join(out.split())
    assert len(json.loads(run("info", tmp_path / "m", "--json")[1])["nonfinite"]) == 1
    code, out, _ = run("info", tmp_path / "m", "--no-check")
    assert code == 0
    assert "not checked" in out


def test_info_notes_when_reading_takes_time(run, monkeypatch):
    monkeypatch.setattr("aimv2_np.cli_about.BIG", 1000)
    assert "292.13 kB to look for NaN and Inf (--no-check" in run("info", RANDOM_LIT)[2]
    assert run("info", RANDOM_LIT, "--quiet")[2] == ""


def test_info_names_official_models_of_the_same_architecture():
    from aimv2_np.cli_about import _same_architecture

    assert _same_architecture(OFFICIAL["large-patch14-336"].config) == [
        "large-patch14-336",
        "large-patch14-336-distilled",
    ]


# ---------------------------------------------------------------------------- trace


def test_trace_lists_names(run, model):
    code, out, err = run("trace", "emoji-lit", "--list")
    assert (code, err) == (0, "")
    assert out.splitlines() == aimv2_np.activation_names(model.config)
    _, out, _ = run("trace", "emoji-lit", "--list", "--names", "*.norm")
    assert out.splitlines() == ["vision.norm", "text.norm"]


def test_trace_of_a_pattern_that_nothing_matches(run, tmp_path):
    target = tmp_path / "t.safetensors"
    for rest in (("--list",), ("--image", CAT, "--out", target)):
        code, out, err = run("trace", "emoji-lit", "--names", "*.nrom", *rest)
        assert (code, out) == (1, "")
        assert "no activation matches '*.nrom'" in one_error(err)
    assert not target.exists()


def test_trace_records(run, tmp_path, model):
    target = tmp_path / "t.safetensors"
    code, out, err = run(
        "trace", "emoji-lit", "--image", CAT, "--text", "a cat", "a dog", "--out", target
    )
    assert (code, out) == (0, "")
    assert "activations" in err
    found = aimv2_np.Trace.load(target)
    expected = model.trace(images=[CAT], texts=["a cat", "a dog"])
    assert list(found) == list(expected)
    np.testing.assert_array_equal(found["logits_per_image"], expected["logits_per_image"])
    assert found.metadata["model"] == "emoji-lit"


def test_trace_of_some_names_in_float64(run, tmp_path):
    target = tmp_path / "t.safetensors"
    options = ("--names", "*.resid_post", "--dtype", "float64", "--out", target, "-q")
    assert run("trace", NATIVE, "--image", CAT, *options) == (0, "", "")
    found = load_file(target)
    assert sorted(found) == ["vision.blocks.0.resid_post", "vision.blocks.1.resid_post"]
    assert {array.dtype for array in found.values()} == {np.dtype("float64")}


def test_trace_refuses(run, tmp_path):
    target = tmp_path / "t.safetensors"
    code, _, err = run("trace", NATIVE, "--image", CAT, "--text", "a", "--out", target)
    assert code == 1
    assert "vision-only" in one_error(err)
    assert not list(tmp_path.iterdir())
    target.write_text("mine")
    code, _, err = run("trace", "emoji-lit", "--image", CAT, "--out", target)
    assert code == 1
    assert "--force" in one_error(err)
    assert target.read_text() == "mine"


# ---------------------------------------------------------------------------- real processes

posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
PROGRAM = [sys.executable, "-m", "aimv2_np"]
# as a user's: without a buffer nothing would be left to write when the interpreter ends
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def process(*argv, env=None, **options):
    return subprocess.run(
        [*PROGRAM, *map(str, argv)],
        env=BUFFERED | (env or {}),
        capture_output=not options.keys() & {"stdout", "stderr"},
        timeout=60,
        **options,
    )


def test_python_m_runs_it():
    done = process("models")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"large-patch14-224-lit" in done.stdout
    assert process("info", "no/such").returncode == 1


def test_help_does_not_wait_for_numpy():
    code = (
        "import sys\nfrom aimv2_np.cli import main\n"
        "assert main(['--version']) == main(['classify', '--help']) == 0\n"
        "assert not {'numpy', 'PIL', 'tokenizers', 'huggingface_hub', 'shtab'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_scripts(shell, tmp_path):
    done = process("--print-completion", shell)
    assert (done.returncode, done.stderr) == (0, b"")
    script = done.stdout.decode()
    assert all(word in script for word in COMMANDS)
    if shell == "bash" and shutil.which("bash"):
        subprocess.run(["bash", "-n"], input=done.stdout, check=True)
        complete = "\nCOMP_WORDS=(aimv2-np info large-patch14-224-d)\nCOMP_CWORD=2\n_shtab_aimv2_np"
        asked = script + complete + '\nprintf "%s\\n" "${COMPREPLY[@]}"'
        found = subprocess.run(["bash"], input=asked.encode(), capture_output=True, cwd=tmp_path)
        assert found.stdout.split() == [b"large-patch14-224-distilled"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_any_encoding_can_show_it(encoding):
    env = {"PYTHONIOENCODING": encoding}
    done = process("classify", CAT, "--texts", "ä 語", "a", "--quiet", env=env)
    assert done.returncode == 0
    out = done.stdout.decode(encoding)
    assert ("█" in out) == (encoding == "utf-8")
    assert ("#" in out) != (encoding == "utf-8")
    assert "Traceback" not in done.stderr.decode(encoding)
    found = json.loads(process("classify", CAT, "--texts", "ä 語", "--json", env=env).stdout)
    assert found["results"][0]["labels"] == ["ä 語"]
    demo = process("demo", env=env)
    assert demo.returncode == 0
    assert b"\\x" not in demo.stdout
    assert b"\\u" not in demo.stdout


@posix
@pytest.mark.parametrize("argv", [("--help",), ("info", "emoji-lit", "--keys"), ("demo",)])
def test_a_reader_that_leaves_is_no_error(argv):
    reading, writing = os.pipe()
    os.close(reading)
    done = process(*argv, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode in (0, 141)


@posix
def test_output_that_cannot_be_written_is_an_error():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "wb") as full:
        done = process("models", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "aimv2-np: error: cannot write to standard output: No space left on device"
    ]


@posix
@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_are_no_bug(redirect):
    line = f'"$@" classify {CAT} --texts a b {redirect}'
    done = subprocess.run(["sh", "-c", line, "sh", *PROGRAM], capture_output=True)
    assert done.returncode == 0
    assert b"rror" not in done.stderr


def interrupt(argv, seen, folder):
    """Sends Ctrl-C once a word has been seen on standard error; gives exit code and the rest."""
    with subprocess.Popen(
        [*PROGRAM, *argv], stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder
    ) as running:
        for line in running.stderr:
            if seen in line:
                break
        time.sleep(0.2)
        assert running.poll() is None, "it ended before it could be interrupted"
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read().decode()
        return running.wait(30), rest


@posix
def test_ctrl_c_leaves_nothing_behind(tmp_path):
    argv = ["embed", *[CAT] * 5000, "--out", "x.npz"]
    code, err = interrupt(argv, b"note: ", tmp_path)
    assert code == 130
    assert err.startswith("aimv2-np: interrupted")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@posix
def test_a_terminal_gets_a_progress_bar_and_a_pipe_does_not(tmp_path):
    argv = ["classify", *[CAT] * 6, "--texts", "a", "b", "--json"]
    piped = process(*argv)
    assert b"image/s" not in piped.stderr
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    done = process(*argv, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # Linux: EIO where other systems say that it ended
        while part := os.read(ours, 10_000):
            shown += part
    os.close(ours)
    assert b"0/6" in shown
    assert len(json.loads(done.stdout)["results"]) == 6
    assert json.loads(done.stdout) == json.loads(piped.stdout)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("classify nope.jpg --texts a --model large-patch14-224-lit", "nope.jpg: no such file"),
        ("classify {cat} --texts a --model large-patch14-224", "without a text encoder"),
        ("embed {cat} --out {tmp}/e.npz --model large-patch14-224", "add --pool mean"),
        ("embed {cat} nope.jpg --out {tmp}/e.npz --model large-patch14-224-lit", "nope.jpg"),
        ("trace large-patch14-224 --image nope.jpg --out {tmp}/t.safetensors", "nope.jpg"),
        ("trace large-patch14-224 --text a --out {tmp}/t.safetensors", "without a text encoder"),
        ("explain nope.jpg --out {tmp}/p.html --model large-patch14-224", "nope.jpg: no such file"),
        ("explain {cat} --texts a --out {tmp}/p.html --model large-patch14-224", "without a text"),
        ("explain {cat} --out {tmp}/p.htm --model large-patch14-224", "ends in .html"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_fetched(
    command, message, tmp_path, monkeypatch, capsys
):
    def fetch(*args, **options):
        raise AssertionError("the model was looked for first")

    monkeypatch.setattr("aimv2_np.loader.resolve", fetch)
    words = command.format(cat=CAT, tmp=tmp_path).split()
    assert main(words) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_an_embedding_file_has_the_permissions_of_any_new_file(suffix, tmp_path):
    target = tmp_path / f"e.{suffix}"
    assert main(["embed", CAT, "--out", str(target), "--quiet"]) == 0
    (tmp_path / "other").touch()
    assert target.stat().st_mode == (tmp_path / "other").stat().st_mode


TOO_LARGE = """
import resource, signal, sys
from aimv2_np.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
sys.exit(main(sys.argv[1:]))
"""


@posix
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(suffix, tmp_path):
    target = tmp_path / f"e.{suffix}"
    target.write_bytes(b"old")
    argv = ["embed", CAT, "--out", str(target), "--force", "--quiet"]
    done = subprocess.run([sys.executable, "-c", TOO_LARGE, *argv], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"aimv2-np: error: cannot write {target}" in done.stderr
    assert "bug" not in done.stderr
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [target.name]
