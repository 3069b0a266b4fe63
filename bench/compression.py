"""Claim: `oneiros zip` compresses English text far better than gzip, xz and zstd.

The last 100 kB of tinyshakespeare (`--quick`: the last 4 kB), compressed and restored by ours with
the default model, and by the three peers at their best levels. The model's own 98 MB are not
counted: like a processor or a dictionary that both ends have, it is there already. It has probably
read Shakespeare; a text written after it would compress less well.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import os
import subprocess
import sys
import time
from pathlib import Path

from report import Row, report

import oneiros
from oneiros.compression.codec import compress, decompress

BYTES, QUICK_BYTES = 100_000, 4_000
TARGET = 1.5  # times smaller than the best of the peers' files


PROJECT = Path(__file__).resolve().parent.parent
PEERS_PYTHON = PROJECT / ".peers" / "bin" / "python"  # `make peers`
ZSTD = """
import sys, zstandard
data = sys.stdin.buffer.read()
sys.stdout.buffer.write(zstandard.ZstdCompressor(level=19).compress(data))
"""


def sample(size: int) -> bytes:
    data = Path(os.environ.get("ONEIROS_DATA", PROJECT.parent / "shared" / "data"))
    return (data / "text" / "tinyshakespeare.txt").read_bytes()[-size:]


def peers(data: bytes) -> dict[str, bytes]:
    compressed = {
        "gzip-9": gzip.compress(data, 9, mtime=0),
        "xz-9": lzma.compress(data, preset=9),
    }
    if PEERS_PYTHON.exists():
        compressed["zstd-19"] = subprocess.run(
            [PEERS_PYTHON, "-c", ZSTD], input=data, stdout=subprocess.PIPE, check=True
        ).stdout
    return compressed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 kB instead of 100 kB")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if not PEERS_PYTHON.exists():
        if not options.quick:
            parser.error("zstd is not here: run `make peers` first")
        print("The peers are not built (`make peers`): without zstd.", file=sys.stderr)

    data = sample(QUICK_BYTES if options.quick else BYTES)
    model = oneiros.load()
    begun = time.perf_counter()
    compressed = compress(data, model)
    zipped = time.perf_counter()
    restored = decompress(compressed, model)
    unzipped = time.perf_counter()
    if restored != data:
        sys.exit("The restored text differs from the original.")

    case = f"tinyshakespeare {len(data) // 1000}kB"
    rows = [
        Row(f"{case} {name}", "size", len(compressed), len(other), "bytes", "lower", TARGET)
        for name, other in peers(data).items()
    ]
    bits = 8 * len(compressed) / len(data)
    rows += [
        Row(case, "bits per byte", bits, None, "bits", "lower"),
        Row(case, "zip", len(data) / (zipped - begun), None, "bytes/s", "higher"),
        Row(case, "unzip", len(data) / (unzipped - zipped), None, "bytes/s", "higher"),
    ]
    report("compression", rows, options.json)


if __name__ == "__main__":
    main()
