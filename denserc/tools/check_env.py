"""Versions, devices and missing parts, each with its fix (`denserc check-env`).

Needs only the standard library to start.
"""

import enum
import importlib
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import denserc

PYTHON_RANGE = ((3, 10), (3, 13))
OPENCV_VARIANTS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_DETECTRON2_FIX = "run `make env`, or follow Detectron2's own installation notes; any version of 2024 or later will do"


class Status(enum.Enum):
    """Outcome of a check; only BROKEN fails the whole."""

    OK = "ok"
    NOTE = "note"
    BROKEN = "BROKEN"


@dataclass(frozen=True)
class Check:
    """One line of the report: the check, its result, and the fix (empty if none is needed)."""

    what: str
    status: Status
    found: str
    fix: str = ""


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """The interpreter is in the supported range."""
    low, high = PYTHON_RANGE
    wanted = f"{low[0]}.{low[1]}-{high[0]}.{high[1]}"
    if low <= tuple(version) <= high:
        return Check("Python", Status.OK, f"{platform.python_version()} on {platform.platform()}")
    return Check(
        "Python",
        Status.BROKEN,
        f"{version[0]}.{version[1]}, needed is {wanted}",
        "remove .venv and run `make env PYTHON=python3.11`",
    )


def check_requirements() -> list[Check]:
    """Every distribution that setup.cfg names is installed in a version that it allows."""
    try:
        requirements = metadata.requires("denserc") or []
    except metadata.PackageNotFoundError:
        return [Check("denserc", Status.BROKEN, "imported, but not installed", "pip install --editable '.[dev]'")]
    checks = [Check("denserc", Status.OK, f"{denserc.__version__} in {Path(denserc.__file__).parent}")]
    checks += [check_requirement(text, _installed_version) for text in requirements if "extra ==" not in text]
    return checks


def check_requirement(requirement: str, installed_version: Callable[[str], str | None]) -> Check:
    """One requirement ("name>=version") against the installed version (None: not installed)."""
    name, minimum = re.fullmatch(r"\s*([\w.\-]+)\s*(?:>=\s*([\w.]+))?.*", requirement).groups()
    version = installed_version(name)
    if version is None and name in OPENCV_VARIANTS:
        others = [variant for variant in OPENCV_VARIANTS if installed_version(variant)]
        if others:
            return Check(name, Status.NOTE, f"{others[0]} stands in for it")
    if version is None:
        return Check(name, Status.BROKEN, "not installed", f'pip install "{requirement}"')
    if minimum and _numbers(version) < _numbers(minimum):
        return Check(name, Status.BROKEN, f"{version}, needed is >= {minimum}", f'pip install "{requirement}"')
    return Check(name, Status.OK, version)


def check_torch() -> list[Check]:
    """torch imports, and torchvision's compiled operators were built for it."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # any failure of a third-party import is what this reports
        return [Check("torch import", Status.BROKEN, _first_line(error), "pip install torch torchvision")]
    checks = []
    try:
        ops = importlib.import_module("torchvision.ops")
        ops.nms(torch.zeros(1, 4), torch.ones(1), 0.5)
        checks.append(Check("torchvision operators", Status.OK, "nms works"))
    except Exception as error:
        checks.append(
            Check(
                "torchvision operators",
                Status.BROKEN,
                _first_line(error),
                "torch and torchvision do not belong together (often a CPU-only torch beside a CUDA torchvision): "
                "pip install --force-reinstall torch torchvision, both from one index",
            )
        )
    return checks + check_devices(torch)


def check_devices(torch) -> list[Check]:
    """Devices to compute on; a missing accelerator is a note, not a fault."""
    checks = [Check("CPU", Status.OK, f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in torch")]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        checks.append(Check(f"cuda:{index}", Status.OK, f"{card.name}, {card.total_memory / 2**30:.0f} GiB"))
    if torch.backends.mps.is_available():
        checks.append(Check("mps", Status.OK, "Apple GPU"))
    if len(checks) == 1:
        checks.append(Check("accelerator", Status.NOTE, "none; the miniature world runs on the CPU"))
    return checks


def check_opencv(installed: Collection[str]) -> list[Check]:
    """cv2 imports, and only one of its variants is there (they overwrite each other's files)."""
    checks = []
    variants = [name for name in OPENCV_VARIANTS if name in installed]
    if len(variants) > 1:
        checks.append(
            Check(
                "OpenCV variants",
                Status.NOTE,
                f"side by side: {', '.join(variants)}",
                f"pip uninstall --yes {' '.join(variants)} && pip install opencv-python",
            )
        )
    try:
        cv2 = importlib.import_module("cv2")
        checks.append(Check("cv2 import", Status.OK, cv2.__version__))
    except Exception as error:
        fix = f"pip uninstall --yes {' '.join(variants)} && pip install opencv-python" if variants else ""
        if re.search(r"lib(GL|gthread|glib|SM|Xext|Xrender)", str(error)):
            fix = "install the system libraries (on Debian and Ubuntu: apt install libgl1 libglib2.0-0)"
        checks.append(Check("cv2 import", Status.BROKEN, _first_line(error), fix or "pip install opencv-python"))
    return checks


def check_detectron2() -> list[Check]:
    """Detectron2 imports with the parts in use; its model zoo, which is not in use, may lack pkg_resources."""
    try:
        detectron2 = importlib.import_module("detectron2")
        for part in ("config", "data", "engine", "modeling"):
            importlib.import_module(f"detectron2.{part}")
    except Exception as error:
        return [Check("detectron2", Status.BROKEN, _first_line(error), _DETECTRON2_FIX)]
    checks = [Check("detectron2", Status.OK, f"{detectron2.__version__} in {Path(detectron2.__file__).parent}")]
    try:
        importlib.import_module("detectron2.model_zoo")
    except Exception as error:
        checks.append(
            Check(
                "detectron2.model_zoo",
                Status.NOTE,
                f"{_first_line(error)}; DenseRC does not use it",
                'for your own use of it: pip install "setuptools<81"',
            )
        )
    return checks


def check_imports(modules: tuple[str, ...] = ("timm", "open_clip", "pycocotools.mask", "lvis", "faster_coco_eval")):
    """Compiled or fragile third-party packages import, not only exist."""
    checks = []
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            name = module.split(".")[0]
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                continue  # not installed: the requirements' check has reported it
            fix = f"pip install --force-reinstall --no-deps {name.replace('open_clip', 'open_clip_torch')}"
            checks.append(Check(f"{module} import", Status.BROKEN, _first_line(error), fix))
    return checks


def check_denserc() -> list[Check]:
    """DenseRC itself: the packaged configs are read, and the packaged miniature CLIP makes dense features."""
    try:
        zoo = importlib.import_module("denserc.model_zoo")
        configs = zoo.list_configs()
        zoo.get_config("miniature/fvit")
        torch = importlib.import_module("torch")
        clip = importlib.import_module("denserc.encoders").build_clip("DenseRC-Miniature")
        construction = importlib.import_module("denserc.construction")
        encoder = construction.DenseEncoder(clip.image, construction.Construction()).eval()
        with torch.no_grad():
            features = encoder(torch.zeros(1, 3, 64, 96))
    except Exception as error:
        fix = "mend what is broken above; if nothing is, install DenseRC again: pip install --force-reinstall --no-deps"
        return [Check("denserc works", Status.BROKEN, _first_line(error), fix)]
    found = f"{len(configs)} configs in {zoo.configs_folder()}; miniature CLIP gives {tuple(features.shape)}"
    return [Check("denserc works", Status.OK, found)]


def run_checks() -> list[Check]:
    """All checks, in the order of the report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third-party deprecations would bury the report
        return [
            check_python(),
            *check_requirements(),
            *check_torch(),
            *check_opencv([name for name in OPENCV_VARIANTS if _installed_version(name)]),
            *check_detectron2(),
            *check_imports(),
            *check_denserc(),
        ]


def report(checks: list[Check]) -> str:
    """The checks as aligned lines, with fixes below the checks that need them."""
    width = max(len(check.what) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status.value:<6}  {check.what:<{width}}  {check.found}")
        if check.fix:
            lines.append(f"{'':<6}  {'':<{width}}  fix: {check.fix}")
    broken = sum(check.status is Status.BROKEN for check in checks)
    lines.append(f"{broken} missing or broken; the fixes are above." if broken else "Everything required is there.")
    return "\n".join(lines)


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """The release as numbers without trailing zeros: "2.15.0+cu130" -> (2, 15)."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in release.group().split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
