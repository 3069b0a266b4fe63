"""AgentDojo, where it is installed: on the path behind our own packages."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[2] / ".peers" / "agentdojo"
VERSION = "v1.2.2"  # of the benchmark; the package is 0.1.35
SUITES = ("workspace", "banking", "slack", "travel")


def is_installed() -> bool:
    """Whether `make peers` was run."""
    return (PACKAGES / "agentdojo").is_dir()


def make_importable() -> None:
    """Let `import agentdojo` find it; where both have a package, ours is found first."""
    if str(PACKAGES) not in sys.path:
        sys.path.append(str(PACKAGES))
