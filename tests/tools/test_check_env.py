"""check_env: runs in this environment, and names the known pitfalls with their fixes."""

import importlib
import subprocess
import sys

import pytest

from denserc.commands import check_env as command
from denserc.tools import check_env
from denserc.tools.check_env import Check, Status


def failing_import(monkeypatch, module: str, error: Exception) -> None:
    real = importlib.import_module

    def import_module(name, *arguments):
        if name == module:
            raise error
        return real(name, *arguments)

    monkeypatch.setattr(check_env.importlib, "import_module", import_module)


def test_the_environment_of_the_tests_is_complete():
    done = subprocess.run([sys.executable, "-m", "denserc", "check-env"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in (
        "Python",
        "torch",
        "torchvision operators",
        "cores",
        "detectron2",
        "denserc works",
        "Everything required is there.",
    ):
        assert word in done.stdout


@pytest.mark.parametrize(
    "version, status",
    [((3, 9), Status.BROKEN), ((3, 10), Status.OK), ((3, 13), Status.OK), ((3, 14), Status.BROKEN)],
)
def test_python_range(version, status):
    check = check_env.check_python(version)
    assert check.status is status and bool(check.fix) == (status is Status.BROKEN)


@pytest.mark.parametrize(
    "requirement, version, status",
    [
        ("torch>=2.11", "2.15.0+cu130", Status.OK),
        ("torch>=2.11", "2.9.1", Status.BROKEN),
        ("torch>=2.11", None, Status.BROKEN),
        ("iopath>=0.1.9", "0.1.10", Status.OK),
        ("rich>=13.0", "13", Status.OK),
        ("fvcore>=0.1.5.post20221221", "0.1.5.post20221221", Status.OK),
        ("numpy", "1.0", Status.OK),
    ],
)
def test_requirement(requirement, version, status):
    check = check_env.check_requirement(requirement, lambda name: version)
    assert check.status is status
    if status is Status.BROKEN:
        assert check.fix == f'pip install "{requirement}"'


def test_another_opencv_variant_stands_in():
    present = {"opencv-python-headless": "4.10"}
    assert check_env.check_requirement("opencv-python>=4.9", present.get).status is Status.NOTE


def test_two_opencv_variants_are_noted():
    check = check_env.check_opencv(["opencv-python", "opencv-python-headless"])[0]
    assert check.status is Status.NOTE and "pip uninstall --yes opencv-python opencv-python-headless" in check.fix
    assert all(c.status is Status.OK for c in check_env.check_opencv(["opencv-python"]))


def test_missing_system_library_of_opencv(monkeypatch):
    failing_import(monkeypatch, "cv2", ImportError("libGL.so.1: cannot open shared object file"))
    (check,) = check_env.check_opencv(["opencv-python"])
    assert check.status is Status.BROKEN and "libgl1" in check.fix


def test_torchvision_that_does_not_belong_to_torch(monkeypatch):
    failing_import(monkeypatch, "torchvision.ops", RuntimeError("operator torchvision::nms does not exist"))
    check = check_env.check_torch()[0]
    assert check.status is Status.BROKEN and "torchvision::nms" in check.found and "from one index" in check.fix


def test_model_zoo_without_pkg_resources_is_no_fault(monkeypatch):
    failing_import(monkeypatch, "detectron2.model_zoo", ModuleNotFoundError("No module named 'pkg_resources'"))
    found, zoo = check_env.check_detectron2()
    assert found.status is Status.OK and zoo.status is Status.NOTE and "setuptools<81" in zoo.fix


def test_missing_detectron2_is_a_fault(monkeypatch):
    failing_import(monkeypatch, "detectron2", ModuleNotFoundError("No module named 'detectron2'"))
    (check,) = check_env.check_detectron2()
    assert check.status is Status.BROKEN and "make env" in check.fix


def test_denserc_itself_is_tried(monkeypatch):
    (check,) = check_env.check_denserc()
    assert check.status is Status.OK and "configs in" in check.found and "128, 8, 12" in check.found
    failing_import(monkeypatch, "denserc.model_zoo", ImportError("no yacs"))
    (check,) = check_env.check_denserc()
    assert check.status is Status.BROKEN and "no yacs" in check.found and "install" in check.fix


def test_a_fault_fails_the_whole(monkeypatch, capsys):
    monkeypatch.setattr(check_env, "run_checks", lambda: [Check("thing", Status.BROKEN, "absent", "get one")])
    assert command.main([]) == 1
    assert "fix: get one" in capsys.readouterr().out
    monkeypatch.setattr(check_env, "run_checks", lambda: [Check("thing", Status.NOTE, "odd")])
    assert command.main([]) == 0
