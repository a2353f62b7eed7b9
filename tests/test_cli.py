"""The command `denserc`: quick help, nearest names, exit statuses."""

import os
import subprocess
import sys

import pytest
from detectron2.engine import default_argument_parser

from denserc import __version__, cli
from denserc.commands import choices, training
from denserc.commands.bench import CHECKOUT
from denserc.commands.parsing import did_you_mean, listed
from denserc.structures import DataError
from tests.paths import CONFIGS, ROOT

# Every help text in one process: starting an interpreter per command would be most of the time.
ALL_HELP = """
import contextlib, io, sys, time
from denserc.cli import COMMANDS, FAMILIES, main
for words in [[], *([name] for name in FAMILIES), *(name.split() for name in COMMANDS)]:
    start, out = time.perf_counter(), io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            status = main([*words, "--help"])
        except SystemExit as end:
            status = end.code
    assert status == 0, (words, status)
    name, text = " ".join(words), out.getvalue()
    assert text.startswith(f"usage: denserc {name}"), text
    if name in COMMANDS:
        assert "example" in text.lower() or f"denserc {name}" in text.partition("\\n\\n")[2], f"{name} has no example"
    print(f"{time.perf_counter() - start:.2f}", name)
heavy = {"torch", "detectron2", "numpy", "cv2", "yaml", "rich"} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_of_every_command_is_quick_and_needs_no_torch():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ALL_HELP], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    times = {line.partition(" ")[2]: float(line.partition(" ")[0]) for line in done.stdout.splitlines()}
    assert times.keys() == {"", *cli.FAMILIES, *cli.COMMANDS}
    assert max(times.values()) < 0.5, times


def test_python_dash_m_is_the_same_command():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "denserc"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, env=environment)
    assert done.stdout == f"denserc {__version__}\n" and done.returncode == 0
    done = subprocess.run([*command, "distil"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "did you mean distill?" in done.stderr


@pytest.mark.parametrize(
    "given, expected",
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "1000"}, None)],
)
def test_idle_threads_sleep_unless_the_user_decides(given, expected):
    """Set before torch is imported, and inherited by processes that a command starts."""
    code = """
import os, sys
from denserc import cli, threads
def first():
    assert "torch" not in sys.modules
    threads.let_threads_sleep()
cli.let_threads_sleep = first
assert cli.main(["describe", "absent.safetensors"]) == 2 and "torch" in sys.modules
print(os.environ.get("OMP_WAIT_POLICY"))
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment |= {"PYTHONPATH": str(ROOT), **given}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == f"{expected}\n"


def test_the_list_shows_every_command_with_its_summary(capsys):
    assert cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for group, commands in cli.GROUPS.items():
        assert f"{group}:" in lines
        for command in commands:
            assert any(line.split() == [*command.name.split(), *command.summary.split()] for line in lines)
            assert len(command.summary) <= 70 and not command.summary.endswith(".")


@pytest.mark.parametrize(
    "given, proposal",
    [
        ("distil", "distill"),
        ("evaluate", "eval"),
        ("doctr", "doctor"),
        ("check_env", "check-env"),
        ("train-clip", "lab train-clip"),
        ("train_net", "train"),
        ("show_detections", "show"),
        ("convert_fvit", "convert fvit"),
        ("dataset nwe", "dataset new"),
        ("ablate", "lab ablate"),
        ("lab interferance", "lab interference"),
        ("--hlp", "--help"),
    ],
)
def test_a_misspelt_command_brings_the_nearest(given, proposal, capsys):
    assert cli.main(given.split()) == 2
    assert capsys.readouterr().err.startswith("error: ") and f"did you mean {proposal}?" in cli.unknown_command(
        given.split()
    )


def test_without_a_near_one_nothing_is_proposed(capsys):
    assert cli.main(["zzzzz"]) == 2 and cli.main(["lab", "zzzzz"]) == 2
    err = capsys.readouterr().err
    assert "'zzzzz' is not a command\n" in err and "legal are lab ablate, lab interference, lab train-clip" in err


@pytest.mark.parametrize(
    "given, message",
    [
        ("train --confg-file x", "unrecognized arguments: --confg-file; did you mean --config-file?"),
        ("eval --prediction=x --data-sett y", "unrecognized arguments: --data-sett; did you mean --data-set?"),
        ("lab ablate --table contruction", "did you mean construction?"),
        ("lab ablate --table 13 --downstream segmentaton", "did you mean segmentation?"),
        ("lab ablate --table 13 --segmentation-config x", "for segmentation, which --downstream does not name"),
        ("embed --templates plane", "did you mean plain?"),
        ("train --config-file x SEED 1 --num-gpus 2", "--num-gpus comes after KEY VALUE pairs"),
        ("eval", "either --config-file, or --data-set"),
        ("eval --predictions x", "need --data-set"),
        ("eval --predictions x --data-set y SEED 1", "KEY VALUE pairs belong to --config-file; got SEED 1"),
    ],
)
def test_a_misspelt_option_brings_the_nearest(given, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(given.split())
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and "--help` shows the options." in err


def test_names_with_commas():
    assert listed(" red cup, ball,,") == ["red cup", "ball"]


def test_the_nearest_word():
    assert did_you_mean("--outputs", ["--out", "--output"]) == "; did you mean --output?"
    assert did_you_mean("gates2", {"gates": "lab gates"}) == "; did you mean lab gates?"
    assert did_you_mean("q", ["--output"]) == ""


def test_user_errors_end_with_two_and_bugs_with_a_traceback(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--config-file", "ovlvis_vitl15.yaml"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: There is no file") and "ovlvis_vitl14" in err
    assert cli.main(["describe", "absent.safetensors"]) == 2
    assert "error: There is no DenseRC checkpoint at absent.safetensors" in capsys.readouterr().err

    def fail(error):
        def parser_and_main(arguments):
            raise error

        return parser_and_main

    monkeypatch.setattr("denserc.commands.doctor.main", fail(DataError("no such set")))
    assert cli.main(["doctor", "x"]) == 2
    monkeypatch.setattr("denserc.commands.doctor.main", fail(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor", "x"])


def flags(parser) -> dict:
    """{option strings or name: what argparse does with it}, help texts aside."""
    return {
        tuple(action.option_strings) or action.dest: (
            type(action), action.dest, action.nargs, action.default, action.type, action.const, action.required
        )
        for action in parser._actions
    }  # fmt: skip


def test_trainings_take_detectron2s_flags():
    ours = flags(training.training_parser("train", "", "x"))
    assert ours == flags(default_argument_parser())
    without = flags(training.training_parser("eval", "", "x", eval_only=False))
    assert ours.keys() - without.keys() == {("--eval-only",)}


@pytest.mark.parametrize("command, eval_only", [("train", False), ("eval", True)])
def test_training_and_evaluation_launch_the_same_engine(command, eval_only, monkeypatch):
    launched = []
    monkeypatch.setattr("denserc.launch.launch", lambda main, *a, args, **k: launched.append((main, *args)))
    assert cli.main([command, "--config-file", "ovcoco_vitb16", "--resume", "SEED", "3"]) == 0
    ((_, main, args),) = launched
    assert (main.__module__, main.__name__) == ("denserc.tools.train", "train")
    assert (args.eval_only, args.resume, args.opts) == (eval_only, True, ["SEED", "3"])
    assert args.config_file == str(CONFIGS / "ovcoco_vitb16.yaml")


def test_written_out_choices_are_those_of_the_library():
    from denserc.analysis.ablation_tables import TABLES
    from denserc.analysis.interference import Unrelated
    from denserc.construction import CONSTRUCTIONS
    from denserc.data.vocabulary.prompts import TEMPLATE_SETS
    from denserc.encoders import PositionResize
    from denserc.llava.options import DTYPES
    from denserc.llava.templates import TEMPLATES
    from denserc.miniature.write_world import Sizes
    from denserc.openvocab import StoredPrecision
    from denserc.tools.downstream import TASKS
    from denserc.tools.score_llava import BENCHMARKS

    assert choices.ABLATION_TABLES == tuple(TABLES)
    assert choices.DOWNSTREAM_MEASURES == tuple(TASKS)
    assert set(choices.CONSTRUCTIONS) == set(CONSTRUCTIONS)
    assert set(choices.UNGATED_CONSTRUCTIONS) == {name for name, one in CONSTRUCTIONS.items() if not one.num_gates}
    assert choices.LLAVA_BENCHMARKS == BENCHMARKS
    assert choices.LLAVA_DTYPES == DTYPES
    assert set(choices.LLAVA_TEMPLATES) == {name for name, one in TEMPLATES.items() if not one.one_round}
    assert choices.POSITION_RESIZE == tuple(one.value for one in PositionResize)
    assert choices.STORED_PRECISIONS == tuple(one.value for one in StoredPrecision)
    assert set(choices.TEMPLATES) == set(TEMPLATE_SETS)
    assert choices.UNRELATED_PATCHES == tuple(one.value for one in Unrelated)
    assert choices.WORLD_SIZES == vars(Sizes())


def test_configs_are_listed_and_printed(capsys):
    assert cli.main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.split(maxsplit=1)[1:] == ["DenseRC on EVA-02-CLIP B/16 (supplement, section 7.1)"] for line in lines
    )
    assert cli.main(["configs", "fvit_lvis"]) == 0
    assert capsys.readouterr().out == (CONFIGS / "miniature" / "fvit_lvis.yaml").read_text()
    assert cli.main(["configs", "fvit_lvis.yaml", "--path"]) == 0
    assert capsys.readouterr().out == f"{CONFIGS / 'miniature' / 'fvit_lvis.yaml'}\n"
    assert cli.main(["configs", "fvit_lvs"]) == 2


@pytest.mark.parametrize("words", [["--help"], ["configs"]])
def test_a_reader_that_leaves_is_no_error(words):
    """As in `denserc configs | head -1`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "denserc", *words]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_bench_runs_the_benchmarks_of_the_checkout(monkeypatch):
    started = []

    def run(command, cwd, check):
        started.append((command[1:], cwd))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    assert cli.main(["bench", "--quick", "--only", "growth"]) == 1
    assert started == [(["-m", "benchmarks", "--device", "auto", "--quick", "--only", "growth"], CHECKOUT)]
    assert CHECKOUT == ROOT


def test_bench_needs_a_checkout(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("denserc.commands.bench.CHECKOUT", tmp_path)
    monkeypatch.setattr(subprocess, "run", None)
    assert cli.main(["bench"]) == 2
    assert "not in the installed package" in capsys.readouterr().err


def test_demo_takes_the_packaged_configs(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("denserc.miniature.demo.run.quiet_log", lambda output: None)
    monkeypatch.setattr(
        "denserc.miniature.demo.run.run_demo", lambda places, **options: calls.append((places, options))
    )
    assert cli.main(["demo", "--output", str(tmp_path), "--seeds", "1", "2", "--vocabulary", "red cup, ball"]) == 0
    ((places, options),) = calls
    assert (places.output, places.configs, places.weights) == (tmp_path, CONFIGS, "")
    assert options == {"seeds": [1, 2], "names": ["red cup", "ball"], "processes": None}


def test_demo_needs_a_process(capsys):
    with pytest.raises(SystemExit):
        cli.main(["demo", "--processes", "0"])
    assert "--processes must be at least 1; got 0" in capsys.readouterr().err


def test_train_clip_passes_only_what_is_given(monkeypatch, tmp_path):
    from denserc.miniature import train_clip

    calls = []
    monkeypatch.setattr("torch.set_num_threads", lambda n: calls.append(n))
    monkeypatch.setattr(train_clip, "train_clip", lambda out, recipe, evaluate_every: calls.append((out, recipe)))
    assert cli.main(["lab", "train-clip", "--out", str(tmp_path), "--steps", "7"]) == 0
    assert calls == [2, (tmp_path, train_clip.Recipe(steps=7))]


def test_the_world_is_written_by_a_command(tmp_path):
    sizes = "--train 2 --val 1 --transfer 1 --lvis-train 1 --lvis-val 1 --side 64"
    assert cli.main(["dataset", "miniature", "--root", str(tmp_path), *sizes.split()]) == 0
    assert len(list((tmp_path / "coco" / "train2017").glob("*.jpg"))) >= 2
    assert (tmp_path / "transfer" / "annotations" / "instances_val2017.json").is_file()
