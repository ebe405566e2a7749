"""Stop set-up with a clear message where torch and torchvision were built for different machines.

A +cpu torch beside the index's torchvision fails at `import torchvision` with "operator torchvision::nms does not
exist", and timm with it. Better said here than in the middle of a run.
"""

import sys

try:
    import timm
    import torch
    import torchvision
except Exception as error:  # noqa: BLE001 - whatever it is, the user needs this sentence
    sys.exit(
        f"histokin: torch and torchvision do not fit together ({error}).\n"
        "Remove the environment (make clean) and run make setup again; torch must not be a +cpu wheel "
        "beside a CUDA torchvision."
    )
print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}: they fit")
