"""Says in one sentence, before anything is set up, why this Python cannot; by old Pythons too."""

import importlib
import platform
import sys


def refusal(version, system, machine, missing):
    """The sentence, or None where the pinned packages can be installed and run."""
    if system == "win32":
        return "Windows itself is not served, as JAX's and Snakemake's parts are not: use WSL."
    if system == "darwin" and machine == "x86_64":
        return (
            "JAX has no packages for Macs with Intel's processors any more: use Linux, or Apple's."
        )
    if not (3, 11) <= version < (3, 14):
        return "Python 3.11, 3.12 or 3.13 is needed, not {}.{}: make PYTHON=python3.12".format(
            *version
        )
    if missing:
        return "Python's module {} is missing: apt-get install python{}.{}-venv".format(
            missing, *version
        )
    return None


if __name__ == "__main__":
    absent = []
    for module in ("venv", "ensurepip"):
        try:
            importlib.import_module(module)
        except ImportError:
            absent.append(module)
    sys.exit(refusal(sys.version_info[:2], sys.platform, platform.machine(), " and ".join(absent)))
