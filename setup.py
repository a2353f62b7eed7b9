"""Brings configs/ into the package at build time, as denserc/model_zoo/configs. All else is in setup.cfg."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONFIGS = Path("configs")
PACKAGED = Path("denserc", "model_zoo", "configs")


class BuildWithConfigs(build_py):
    """Builds the package with a copy of configs/. An editable install reads configs/ itself."""

    def _copies(self) -> dict[str, Path]:
        """File of the built package -> its source; none for an editable install."""
        if self.editable_mode:
            return {}
        target = Path(self.build_lib, PACKAGED)
        return {str(target / file.relative_to(CONFIGS)): file for file in sorted(CONFIGS.rglob("*.yaml"))}

    def run(self) -> None:
        super().run()
        for target, source in self._copies().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(str(source), target, preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._copies()]

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *(str(file) for file in CONFIGS.rglob("*.yaml"))]


setup(cmdclass={"build_py": BuildWithConfigs})
