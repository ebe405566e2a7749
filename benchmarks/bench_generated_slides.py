"""What a generated slide costs: CPU seconds to draw and write 4096 x 4096 px, beside JPEG-encoding the same pixels.

Run: .venv/bin/python benchmarks/bench_generated_slides.py [--side 4096] [--repeats 3]
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from histokin.artefacts import versions, write_json
from histokin.slides.generated import DIAGNOSES, GeneratedSlideSpec, RenderedSlide, render_slide, write_pyramid

RESULTS = Path(__file__).parent / "results" / "generated_slides.json"


def encode(rgb: np.ndarray) -> int:
    """The plain way to make a file of the same pixels: one JPEG of 256-px tiles, no pyramid, no container."""
    n_bytes = 0
    for y in range(0, rgb.shape[0], 256):
        for x in range(0, rgb.shape[1], 256):
            tile = np.ascontiguousarray(rgb[y : y + 256, x : x + 256])
            n_bytes += len(simplejpeg.encode_jpeg(tile, 85, "RGB", "420"))
    return n_bytes


def measure(spec: GeneratedSlideSpec, folder: Path) -> tuple[dict[str, float], RenderedSlide]:
    start = time.process_time()
    slide = render_slide(spec)
    drawn = time.process_time()
    write_pyramid(folder / "slide.tiff", slide.rgb, mpp=spec.mpp, quality=spec.jpeg_quality)
    written = time.process_time()
    encode(slide.rgb)
    encoded = time.process_time()
    return {
        "draw_s": drawn - start,
        "write_s": written - drawn,
        "total_s": written - start,
        "jpeg_s": encoded - written,
        "bytes_a_pixel": (folder / "slide.tiff").stat().st_size / slide.rgb[..., 0].size,
        "tissue": float(slide.tissue.mean()),
    }, slide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in DIAGNOSES:
            spec = GeneratedSlideSpec(width=arguments.side, height=arguments.side, diagnosis=name)
            runs = [measure(spec, Path(folder))[0] for _ in range(arguments.repeats)]
            best = {key: min(run[key] for run in runs) for key in runs[0]}
            rows[name] = best | {"ratio_to_jpeg": best["total_s"] / best["jpeg_s"]}
            print(name, {key: round(value, 3) for key, value in rows[name].items()})
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    result = {
        "what": "CPU seconds on one core to draw a slide and write its pyramid; baseline: JPEG of the same pixels",
        "inputs": vars(arguments),
        "slides": rows,
        "worst_total_s": max(row["total_s"] for row in rows.values()),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions(),
        "commit": commit,
    }
    write_json(RESULTS, result)
    json.dump({key: result[key] for key in ("worst_total_s", "peak_memory_mib")}, sys.stdout)
    print(f"\nwritten: {RESULTS}")


if __name__ == "__main__":
    main()
