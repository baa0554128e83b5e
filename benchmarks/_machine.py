"""What the rest of the machine does while something is timed."""

from __future__ import annotations

import os
from pathlib import Path


def others_seconds() -> float:
    """CPU seconds so far that went to anything but this process, on all cores of a Linux machine.

    Time that the host took from it is among them. Timings mean little where this grows.
    """
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:2])
