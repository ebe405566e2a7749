"""What tissue a generated slide can hold and what each diagnosis is made of: names and numbers, no drawing.

Lengths are in um. The figures are of the order found in histology textbooks, chosen by eye; nothing here is fitted to
patients, and a generated slide is good for testing software, not for learning about disease.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CLASSES: tuple[str, ...] = (
    "background",
    "tumour",
    "stroma",
    "gland",
    "lymphoid",
    "fat",
    "necrosis",
    "blood",
    "mucin",
)
BACKGROUND, TUMOUR, STROMA, GLAND, LYMPHOID, FAT, NECROSIS, BLOOD, MUCIN = range(len(CLASSES))

# Regions get their class by cutting one smooth field along this order, so that neighbours are believable: necrosis
# lies inside tumour, lymphoid tissue at its edge, fat on the far side of stroma.
NEIGHBOURHOOD = (FAT, STROMA, BLOOD, GLAND, MUCIN, LYMPHOID, TUMOUR, NECROSIS)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Shares of tissue and the architecture that goes with them.

    Attributes:
        mix: share of the tissue area by class index; sums to 1.
        nest_um: width of tumour nests between septa.
        infiltration_um: how far tumour and its surroundings reach into one another.
        gland_um: mean gland radius.
        gland_disorder: how irregular the glands' outlines are, 0 to 1.
        inflamed: share of stroma and gland with scattered lymphocytes.
        germinal: tendency of lymphoid tissue to form germinal centres, 0 to 1.
    """

    mix: Mapping[int, float]
    nest_um: float = 110.0
    infiltration_um: float = 22.0
    gland_um: float = 52.0
    gland_disorder: float = 0.4
    inflamed: float = 0.15
    germinal: float = 0.2


def _mix(**shares: float) -> Mapping[int, float]:
    return MappingProxyType({CLASSES.index(name): share for name, share in shares.items()})


DIAGNOSES: Mapping[str, Diagnosis] = MappingProxyType(
    {
        "carcinoma": Diagnosis(
            _mix(tumour=0.38, stroma=0.27, gland=0.06, lymphoid=0.07, fat=0.07, necrosis=0.10, blood=0.03, mucin=0.02),
            infiltration_um=34.0,
            gland_disorder=0.8,
        ),
        "inflammation": Diagnosis(
            _mix(stroma=0.31, gland=0.21, lymphoid=0.27, fat=0.07, necrosis=0.04, blood=0.07, mucin=0.03),
            gland_um=46.0,
            gland_disorder=0.55,
            inflamed=0.45,
            germinal=0.8,
        ),
        "benign": Diagnosis(
            _mix(stroma=0.36, gland=0.31, lymphoid=0.07, fat=0.19, blood=0.03, mucin=0.04),
            gland_um=56.0,
            gland_disorder=0.2,
            inflamed=0.06,
        ),
        "mucinous carcinoma": Diagnosis(
            _mix(tumour=0.25, stroma=0.24, gland=0.05, lymphoid=0.06, fat=0.08, necrosis=0.03, blood=0.03, mucin=0.26),
            nest_um=70.0,
            infiltration_um=48.0,
            gland_disorder=0.7,
            inflamed=0.1,
        ),
    }
)
