"""Chooses JAX's platform before JAX does, so that libtpu stays untouched on a machine without a TPU.

`jax[tpu]` on such a machine is there for `s1_jax.plan`, which uses the TPU compiler alone. Left to itself, JAX starts
libtpu in every process: it prints a block of warnings and holds the lock that `plan` has to wait for.

Imports neither JAX nor anything slow: the package itself calls it, before all that is slow.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path("/")
TPU_DEVICES = ("dev/accel[0-9]*", "dev/vfio/[0-9]*")  # by generation; /dev/accel/ is the folder of other accelerators
TPU_VARIABLES = (  # that a TPU VM, Kubernetes or a person sets
    *("TPU_NAME", "TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES", "TPU_ACCELERATOR_TYPE", "TPU_CHIPS_PER_HOST_BOUNDS"),
    *("TPU_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS", "COLAB_TPU_ADDR", "JAX_FORCE_TPU_INIT"),
)
GOOGLE = "0x1ae0"  # as the vendor of a PCI device
NO_ACCELERATOR = ("0x01", "0x02")  # PCI classes of Google's disks and network cards, which every VM of theirs has
NVIDIA_DEVICES = ("dev/nvidia[0-9]*", "dev/nvidiactl", "dev/dxg")


def choose_platform(root: Path = ROOT) -> None:
    """Set JAX_PLATFORMS where libtpu is installed and the machine has no TPU.

    A choice that the user made, in the environment or in JAX's configuration, stays. `root` is where /dev and /sys are
    looked for.
    """
    jax = sys.modules.get("jax")  # imported before this package, it has read its environment already
    chosen = "JAX_PLATFORMS" in os.environ or (jax is not None and jax.config.jax_platforms is not None)
    if chosen or find_spec("libtpu") is None or has_tpu(root):
        return
    if (platforms := without_tpu(root)) is None:
        return
    os.environ["JAX_PLATFORMS"] = platforms
    if jax is not None:
        jax.config.update("jax_platforms", platforms)


def has_tpu(root: Path = ROOT) -> bool:
    """Tell whether anything says that this machine has a TPU: a device, the PCI bus, or a variable."""
    return has_tpu_device(root) or _has_tpu_on_pci(root) or any(name in os.environ for name in TPU_VARIABLES)


def has_tpu_device(root: Path = ROOT) -> bool:
    """Tell whether /dev holds a TPU chip, as on every TPU VM."""
    return any(any(root.glob(pattern)) for pattern in TPU_DEVICES)


def without_tpu(root: Path = ROOT) -> str | None:
    """Return what JAX would choose from if libtpu were not installed; None where a plugin is unknown here."""
    plugins = _plugins()
    if "PJRT_NAMES_AND_LIBRARY_PATHS" in os.environ or any(not name.startswith("xla_cuda") for name in plugins):
        return None
    nvidia = any(any(root.glob(pattern)) for pattern in NVIDIA_DEVICES)
    return "cuda,cpu" if plugins and nvidia else "cpu"


def _has_tpu_on_pci(root: Path) -> bool:
    for vendor in root.glob("sys/bus/pci/devices/*/vendor"):
        try:
            if vendor.read_text().strip() == GOOGLE:
                kind = vendor.with_name("class")
                if not kind.is_file() or not kind.read_text().startswith(NO_ACCELERATOR):
                    return True
        except OSError:  # a device that went away meanwhile
            continue
    return False


def _plugins() -> list[str]:
    """Return the names of JAX's installed plugins, found as JAX finds them: in a package, or by entry points."""
    import pkgutil
    from importlib.metadata import entry_points

    package = find_spec("jax_plugins")
    folders = list(package.submodule_search_locations or ()) if package else []
    modules = [module.name for module in pkgutil.iter_modules(folders)]
    return modules + [
        point.value.split(":")[0].removeprefix("jax_plugins.") for point in entry_points(group="jax_plugins")
    ]
