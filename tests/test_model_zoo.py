"""The packaged configs by name, in a checkout and from a wheel."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

import denserc
from denserc import model_zoo
from denserc.config import read_config
from denserc.structures import ConfigurationError
from tests.paths import CONFIGS, ROOT


def test_every_file_of_the_folder_is_listed_and_read_as_it_is():
    files = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")}
    assert {f"{name}.yaml" for name in model_zoo.list_configs()} == files
    for name in model_zoo.list_configs():
        assert model_zoo.get_config_file(name) == CONFIGS / f"{name}.yaml"


@pytest.mark.parametrize("name", ["distill/denserc_vitb16", "denserc_vitb16", "denserc_vitb16.yaml"])
def test_folder_and_ending_may_be_omitted(name):
    assert model_zoo.get_config_file(name) == CONFIGS / "distill" / "denserc_vitb16.yaml"


def test_the_package_has_it_as_an_attribute():
    assert denserc.model_zoo is model_zoo


def test_a_config_holds_what_its_file_says_over_the_defaults():
    expected = read_config(CONFIGS / "ovlvis_vitl14.yaml")
    cfg = model_zoo.get_config("ovlvis_vitl14")
    assert cfg == expected and cfg.MODEL.META_ARCHITECTURE == "FViT"
    cfg.SEED = 3  # not frozen


@pytest.mark.parametrize(
    "name, nearest",
    [
        ("ovlvis_vitl15", "ovlvis_vitl14"),
        ("distil/denserc_vitb16", "distill/denserc_vitb16"),
        ("denserc_vit_b16.yaml", "distill/denserc_vitb16"),
    ],
)
def test_an_unknown_name_brings_the_nearest(name, nearest):
    with pytest.raises(ConfigurationError, match=f"no packaged config '{name}'; the nearest: .*{nearest}"):
        model_zoo.get_config_file(name)


def test_without_a_near_one_all_are_listed():
    with pytest.raises(ConfigurationError, match="packaged are Base-CATSeg, Base-FViT, .*, distill/.*, transfer_voc"):
        model_zoo.get_config("zzz")


def test_an_ambiguous_name_brings_the_candidates(tmp_path, monkeypatch):
    for file in ("Base-FViT.yaml", "a/one.yaml", "b/one.yaml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.setattr(model_zoo, "_PACKAGED", tmp_path)
    with pytest.raises(ConfigurationError, match="2 packaged configs; give one: a/one, b/one"):
        model_zoo.get_config_file("one")
    assert model_zoo.get_config_file("b/one") == tmp_path / "b" / "one.yaml"


def test_an_incomplete_installation_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(model_zoo, "_PACKAGED", tmp_path / "p")
    monkeypatch.setattr(model_zoo, "_CHECKOUT", tmp_path / "c")
    with pytest.raises(ConfigurationError, match="neither in .*p nor in .*c: the installation is incomplete"):
        model_zoo.list_configs()


def test_an_existing_file_comes_before_a_packaged_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_zoo.find_config_file("ovlvis_vitl14.yaml") == str(CONFIGS / "ovlvis_vitl14.yaml")
    (tmp_path / "ovlvis_vitl14.yaml").touch()
    assert model_zoo.find_config_file("ovlvis_vitl14.yaml") == "ovlvis_vitl14.yaml"
    with pytest.raises(ConfigurationError, match=f"no file {tmp_path}/my.yaml. There is no packaged config 'my.yaml'"):
        model_zoo.find_config_file("my.yaml")


USE = """
import sys
from pathlib import Path
import denserc
import denserc
from denserc import model_zoo
home = Path(denserc.__file__).parent
assert home.is_relative_to(sys.prefix), home
assert model_zoo.configs_folder() == home / "model_zoo" / "configs"
assert model_zoo.get_config("ovlvis_vitb16").MODEL.META_ARCHITECTURE == "FViT"  # by two _BASE_
assert model_zoo.get_config("miniature/fvit").MODEL.DEVICE == "cpu"  # whose _BASE_ is in the folder above
assert (home / "model_zoo" / "miniature.safetensors").stat().st_size < 6e6
assert denserc.Predictor("miniature", device="cpu").names  # the packaged model, in a folder without any file
print("\\n".join(model_zoo.list_configs()))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what is under version control or will be, so that nothing built remains in the checkout."""
    folder = tmp_path_factory.mktemp("source") / "denserc"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for file in files:
        if file.startswith(("denserc/", "configs/", "setup.", "pyproject", "README", "LICENSE", "MANIFEST")):
            if (ROOT / file).is_file():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes((ROOT / file).read_bytes())
    return folder


@pytest.fixture(scope="module")
def fresh_environment(tmp_path_factory):
    """install(project folder or wheel, *options of pip) -> bin folder of a new environment that has it.

    The requirements are those of the running environment, by a .pth file; nothing is downloaded. Its own site-packages
    come first.
    """

    def install(target: Path, *options: str) -> Path:
        folder = tmp_path_factory.mktemp("environment") / "venv"
        venv.create(folder, with_pip=False)
        bin_folder = folder / "bin"
        site = subprocess.run(
            [bin_folder / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        (Path(site) / "requirements.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        run(
            bin_folder / "python", "-m", "pip", "install", "--ignore-installed", "--no-index", "--no-deps", *options,
            target, cwd=folder,
        )  # fmt: skip
        return bin_folder

    return install


def run(*command, cwd, status: int = 0) -> str:
    """Output of a command without PYTHONPATH, which must end with `status`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    output = done.stdout + (done.stderr if status else "")
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-3000:]
    return output


def built(kind: str, source: Path, output: Path) -> Path:
    """The sdist or wheel of a source folder, by setuptools of the running environment."""
    output.mkdir(exist_ok=True)
    code = f"import setuptools.build_meta as b, sys; print(b.build_{kind}(sys.argv[1]))"
    return output / run(sys.executable, "-c", code, output, cwd=source).splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["wheel", "wheel of the sdist"])
def test_a_wheel_brings_the_configs_and_the_command(way, source, fresh_environment, tmp_path):
    if way == "wheel of the sdist":
        with tarfile.open(built("sdist", source, tmp_path / "dist")) as archive:
            archive.extractall(tmp_path, filter="data")
        (source,) = tmp_path.glob("denserc-*")
    wheel = built("wheel", source, tmp_path / "wheels")
    bin_folder = fresh_environment(wheel)
    elsewhere = tmp_path / "empty"
    elsewhere.mkdir()
    assert run(bin_folder / "python", "-c", USE, cwd=elsewhere).split() == model_zoo.list_configs()
    assert "doctor" in run(bin_folder / "denserc", "--help", cwd=elsewhere)
    assert "ovlvis_vitl14" in run(bin_folder / "denserc", "configs", cwd=elsewhere)
    assert "not in the installed package" in run(bin_folder / "denserc", "bench", "--quick", cwd=elsewhere, status=2)


@pytest.mark.slow
def test_an_editable_install_reads_the_folder_itself(source, fresh_environment, tmp_path):
    bin_folder = fresh_environment(source, "--no-build-isolation", "--editable")
    (source / "configs" / "new.yaml").write_text("_BASE_: Base-FViT.yaml\nSEED: 7\n")
    code = "from denserc import model_zoo as m; print(m.configs_folder(), m.get_config('new').SEED)"
    folder, seed = run(bin_folder / "python", "-c", code, cwd=tmp_path).splitlines()[-1].split()
    assert (Path(folder), seed) == (source / "configs", "7")
    assert "new" in run(bin_folder / "denserc", "configs", cwd=tmp_path)
