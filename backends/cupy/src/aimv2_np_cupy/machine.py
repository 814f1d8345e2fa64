"""Whether CUDA can be used here, and if not, why and what to do.

`Machine` is all that is asked of CuPy and the driver; tests put another one in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import distributions
from typing import Any

from aimv2_np.errors import BackendUnavailable, first_line

from . import blas
from .compiling import wheel_include_dirs

__all__ = ["NEEDED", "Machine", "devices_of", "require_dtype"]

INSTALL = "pip install 'aimv2-np-cupy[cuda12]' (or [cuda13], for drivers from 580 on)"
NEEDED = {"tf32": (8, 0), "float16": (8, 0), "bfloat16": (8, 0)}  # compute capability
_LIBRARIES = ("cuBLAS", "NVRTC")


class Machine:
    """What is installed, and what CuPy says of the driver and its devices."""

    def wheels(self) -> list[str]:
        """The distributions that bring CuPy."""
        names = {(d.metadata["Name"] or "").lower() for d in distributions()}
        return sorted(name for name in names if name == "cupy" or name.startswith("cupy-cuda"))

    def cupy(self) -> Any:
        """The package."""
        return import_module("cupy")

    def library(self, name: str) -> Any:
        """A library of the toolkit, loaded."""
        if name == "cuBLAS":
            return blas.load(self.runtime())
        return import_module("cupy_backends.cuda.libs.nvrtc").getVersion()

    def mixed(self) -> bool:
        """Whether NVIDIA's wheels for CUDA 13 lie beside a CuPy for 12, and are found first."""
        found = any(folder.parent.name == "cu13" for folder in wheel_include_dirs())
        return found and self.runtime() // 1000 == 12

    def driver(self) -> int:
        """The newest CUDA that the driver supports, 12040 for 12.4; 0 without a driver."""
        return int(self.cupy().cuda.runtime.driverGetVersion())

    def runtime(self) -> int:
        """The CUDA that the wheel was built for."""
        return int(self.cupy().cuda.runtime.runtimeGetVersion())

    def count(self) -> int:
        """How many devices there are."""
        return int(self.cupy().cuda.runtime.getDeviceCount())

    def name(self, device: int) -> str:
        """A device's name."""
        name = self.cupy().cuda.runtime.getDeviceProperties(device)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    def capability(self, device: int) -> tuple[int, int]:
        """Its compute capability."""
        major, minor = divmod(int(self.cupy().cuda.Device(device).compute_capability), 10)
        return major, minor


def devices_of(machine: Machine, device: int | str | None) -> list[int]:
    """The indices of the devices to use; several in a string, "0,1".

    Raises:
        BackendUnavailable: none can, or not this one; says why, and the remedy.
    """
    _require_cupy(machine)
    _require_driver(machine)
    _require_libraries(machine)
    count = machine.count()
    if count == 0:
        raise BackendUnavailable("the driver shows no GPU; nvidia-smi lists those that it sees")
    indices = _indices(device)
    if indices is None or not all(0 <= index < count for index in indices):
        there = ", ".join(f"{i}: {machine.name(i)}" for i in range(count))
        raise BackendUnavailable(f"there is no device {device!r}; there are {there}")
    return indices


def _indices(device: int | str | None) -> list[int] | None:
    if device is None:
        return [0]
    if isinstance(device, str):
        names = [name.strip() for name in device.removeprefix("cuda:").split(",")]
        known = all(map(str.isdecimal, names)) and len(set(names)) == len(names)
        return [int(name) for name in names] if known else None
    return [device] if isinstance(device, int) else None


def _require_cupy(machine: Machine) -> None:
    wheels = machine.wheels()
    if len(wheels) > 1:
        raise BackendUnavailable(
            f"{' and '.join(wheels)} are both installed and overwrite each other's files: "
            f"pip uninstall -y {' '.join(wheels)}, then {INSTALL}"
        )
    try:
        machine.cupy()
    except ModuleNotFoundError as error:
        raise BackendUnavailable(f"CuPy is not installed: {INSTALL}") from error
    except Exception as error:  # a wheel for another Python, a library that does not load
        raise BackendUnavailable(f"CuPy cannot be imported: {error}; {INSTALL}") from error


def _require_driver(machine: Machine) -> None:
    driver, runtime = machine.driver(), machine.runtime()
    if driver == 0:
        raise BackendUnavailable(
            "there is no NVIDIA driver; install one (in a container: start it with --gpus all)"
        )
    if driver // 1000 < runtime // 1000:
        raise BackendUnavailable(
            f"the driver supports CUDA {_dotted(driver)}, this CuPy needs {_dotted(runtime)}: "
            f"update the driver, or install the CuPy for CUDA {driver // 1000}"
        )


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _require_libraries(machine: Machine) -> None:
    for library in _LIBRARIES:
        try:
            machine.library(library)
        except Exception as error:
            said = first_line(error)
            both = "; libraries of CUDA 12 and 13 are both installed (torch from 2.11 on brings 13)"
            raise BackendUnavailable(
                f"{library} cannot be loaded: {said}{both * machine.mixed()}; {INSTALL}"
            ) from error


def require_dtype(machine: Machine, devices: Sequence[int], dtype: str) -> None:
    """Refuse a dtype that one of the devices has no units for.

    Raises:
        BackendUnavailable: its compute capability is too low.
    """
    needs = NEEDED.get(dtype, (0, 0))
    for device in devices:
        has = machine.capability(device)
        if has < needs:
            raise BackendUnavailable(
                f"{dtype} needs compute capability {needs[0]}.{needs[1]}; device {device}, "
                f"{machine.name(device)}, has {has[0]}.{has[1]}: load with dtype='float32'"
            )
