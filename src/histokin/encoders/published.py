"""Published encoders by name: the files that the papers' authors gave out, and how each is read.

No weights are part of histokin, and none are downloaded: most licences forbid passing them on. `load_encoder(name,
weights=FILE)` reads a file that the user fetched. Tiles are square here, so the authors' rule "shorter side to
`input_px`" is a plain resize; it is done by area, where theirs was bilinear.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from histokin.encoders.weights import KeyMap
from histokin.errors import EncoderError

MPP_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class PublishedEncoder:
    """One published weights file and what its authors say of its use.

    Attributes:
        architecture: timm's name of the network that has the file's tensors.
        keys: the file's layouts.
        n_tensors: of the network; all of them must be in the file.
        dim: length of a vector.
        mean, std: subtracted from and divided into RGB in [0, 1].
        input_px: side that tiles are resized to.
        mpp: pixel sizes the authors name; empty where they name none, or many mixed.
        method: how it was trained.
        file: the file's name.
        source: public page that leads to it.
        licence: in words; terms change, the page is what counts.
        trained_on: the tissue it has seen; figures on the same slides flatter it.
        remark: what else a user should know.
    """

    architecture: str
    keys: KeyMap
    n_tensors: int
    dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_px: int
    mpp: tuple[float, ...]
    method: str
    file: str
    source: str
    licence: str
    trained_on: str
    remark: str = ""


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_LUNIT = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))
_LUNIT_PAGE = "https://github.com/lunit-io/benchmark-ssl-pathology (release pretrained-weights)"


def _lunit(
    architecture: str, n_tensors: int, dim: int, mpp: tuple[float, ...], method: str, file: str
) -> PublishedEncoder:
    return PublishedEncoder(
        architecture=architecture,
        keys=KeyMap(prefixes=("",)),
        n_tensors=n_tensors,
        dim=dim,
        mean=_LUNIT[0],
        std=_LUNIT[1],
        input_px=224,
        mpp=mpp,
        method=method,
        file=file,
        source=_LUNIT_PAGE,
        licence="Lunit's own, non-commercial",
        trained_on="TCGA among others, 20x and 40x",
    )


PUBLISHED: Mapping[str, PublishedEncoder] = MappingProxyType(
    {
        "retccl": PublishedEncoder(
            architecture="resnet50",
            keys=KeyMap(
                prefixes=("", "encoder_q."),
                heads=("fc.", "instDis.", "groupDis."),
                beside=("encoder_k.", "queue"),
            ),
            n_tensors=318,
            dim=2048,
            mean=_IMAGENET[0],
            std=_IMAGENET[1],
            input_px=256,
            mpp=(1.0,),
            method="ccl",
            file="best_ckpt.pth",
            source="https://github.com/Xiyue-Wang/RetCCL (Google Drive folder named in its README)",
            licence="GPL-3, with the wording 'non-commercial academic'",
            trained_on="TCGA and PAIP",
            remark="No crop. Its authors say that 224 px tiles at 5x or 10x do as well if all share one scale.",
        ),
        "ciga": PublishedEncoder(
            architecture="resnet18",
            keys=KeyMap(prefixes=("model.resnet.", "model.", "resnet.", ""), heads=("fc.", "projector.")),
            n_tensors=120,
            dim=512,
            mean=_HALF[0],
            std=_HALF[1],
            input_px=224,
            mpp=(),
            method="simclr",
            file="tenpercent_resnet18.ckpt",
            source="https://github.com/ozanciga/self-supervised-histopathology (release tenpercent)",
            licence="MIT (the repository's)",
            trained_on="57 data sets, TCGA among them",
            remark="Trained on several magnifications at once. Mean and std are stated in the repository's issue 2.",
        ),
        "sgcl": PublishedEncoder(
            architecture="resnet18",
            keys=KeyMap(prefixes=("backbone.", ""), beside=("neck.", "head.", "memory_bank.")),
            n_tensors=120,
            dim=512,
            mean=_IMAGENET[0],
            std=_IMAGENET[1],
            input_px=224,
            mpp=(),
            method="sgcl",
            file="a checkpoint of its training code",
            source="https://github.com/HHHedo/SGCL",
            licence="the repository's",
            trained_on="see its paper",
            remark="Its README calls the weights open but links none. Trained on 224 px of 256 px tiles.",
        ),
        "lunit-bt": _lunit("resnet50", 318, 2048, (0.5, 0.25), "barlow-twins", "bt_rn50_ep200.torch"),
        "lunit-mocov2": _lunit("resnet50", 318, 2048, (0.5, 0.25), "moco-v2", "mocov2_rn50_ep200.torch"),
        "lunit-swav": _lunit("resnet50", 318, 2048, (0.5, 0.25), "swav", "swav_rn50_ep200.torch"),
        "lunit-dino-s16": _lunit(
            "vit_small_patch16_224", 150, 384, (0.5,), "dino", "dino_vit_small_patch16_ep200.torch"
        ),
        "lunit-dino-s8": _lunit("vit_small_patch8_224", 150, 384, (0.5,), "dino", "dino_vit_small_patch8_ep200.torch"),
    }
)
"""By name. Every fact is from the authors' repository, paper or issues; where they are silent the field is empty."""


def weights_wanted(name: str) -> EncoderError:
    """The error for a published encoder without its file: where to get it, and under which terms."""
    entry = PUBLISHED[name]
    return EncoderError(
        "its weights are not part of histokin",
        name,
        f"Get {entry.file} from {entry.source}, licence: {entry.licence}; then pass --weights FILE (weights=FILE).",
    )


def advice(name: str, mpp: float) -> str:
    """One sentence where tiles are not at a pixel size that the authors name, else "".

    Args:
        name: of an encoder; what is not published has nothing to say.
        mpp: micrometres a pixel of the tiles.
    """
    entry = PUBLISHED.get(name)
    if entry is None or not entry.mpp or any(abs(mpp / named - 1) <= MPP_TOLERANCE for named in entry.mpp):
        return ""
    named = " or ".join(f"{value:g}" for value in entry.mpp)
    return (
        f"{name} is meant for tiles at {named} mpp, these are at {mpp:g}: its vectors may be worse than they could be."
    )
