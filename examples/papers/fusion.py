"""The tables of Feichtenhofer et al., Convolutional Two-Stream Network Fusion (CVPR 2016).

    python examples/papers/fusion.py --small WORK
    python examples/papers/fusion.py UCF-101 ucfTrainTestlist WORK \
        --weights cnn-m-2048=FILE --weights vgg16=vgg16.pth

The files are networks that were trained on ImageNet, such as torchvision's VGG-16. A network of
each stream is trained first. Every fusion starts from these two.
"""

from __future__ import annotations

from tables import Paper, Row, Training, main

SMALL = "--width .125 --dropout .2 --learning-rate .002 --steps 40"
# torchvision's VGG-16 is too large for a laptop, so with --small its rows are of the other network.
SMALL_VGG = f"{SMALL} --model cnn-m-2048"
SMALL_FUSED_VGG = f"{SMALL} --backbone cnn-m-2048 --frames 3 --frame-stride 1"


def stream(model: str, name: str, small: str) -> Training:
    """Returns a training of one tower alone, with the scale that the fused network has."""
    return Training(
        f"--model {model} --stream {name}",
        "--recipe two-stream --normalization tsn-rgb --no-subtract-mean-flow --learning-rate .001 "
        "--batch-size 96 --dropout .85",
        f"{small} --normalization tsn-rgb --no-subtract-mean-flow",
        (model,),
    )


def at_one_frame(fusion: str, layers: str = "relu5", num_frozen: int = 5) -> Training:
    """Returns a fusion at one frame and one stack of flow.

    What lies below the fusion keeps its weights.
    """
    # Fused scores need both towers up to there.
    towers = 2 if "fc8" in layers else 1
    return Training(
        "--model two-stream-fusion --stream both --backbone cnn-m-2048 --frames 1 "
        f"--fusion {fusion} --fusion-layers {layers} --fusion-init sum --towers {towers} "
        f"--freeze {num_frozen}",
        "--recipe two-stream-fusion",
        SMALL,
        ("cnn-m-rgb", "cnn-m-flow"),
    )


def over_time(options: str) -> Training:
    """Returns a fusion of five frames, of tables 3 and 5."""
    return Training(
        f"--model two-stream-fusion --stream both {options}",
        "--recipe two-stream-fusion --backbone vgg16",
        SMALL_FUSED_VGG,
        ("vgg16-rgb", "vgg16-flow"),
    )


PAPER = Paper(
    "Convolutional Two-Stream Network Fusion (Feichtenhofer et al. 2016)",
    "UCF101 split 1, top-1 in percent.",
    "--preset feichtenhofer --split 1",
    {
        "cnn-m-rgb": stream("cnn-m-2048", "rgb", SMALL),
        "cnn-m-flow": stream("cnn-m-2048", "flow", SMALL),
        **{one: at_one_frame(one) for one in ("max", "concat", "bilinear", "sum", "conv")},
        "conv-relu2": at_one_frame("conv", "relu2", 2),
        "conv-relu3": at_one_frame("conv", "relu3", 3),
        "conv-relu4": at_one_frame("conv", "relu4", 4),
        "conv-relu5-fc8": at_one_frame("conv", "relu5,fc8"),
        "conv-relu3-relu5-fc6": at_one_frame("conv", "relu3,relu5,fc6", 3),
        "vgg16-rgb": stream("vgg16", "rgb", SMALL_VGG),
        "vgg16-flow": stream("vgg16", "flow", SMALL_VGG),
        "conv-2d-pool": over_time("--fusion conv --no-pool-over-time"),
        "conv-3d-pool": over_time("--fusion conv"),
        "conv3d-3d-pool": over_time("--fusion conv3d"),
        "conv3d-one-tower": over_time("--fusion conv3d --towers 1"),
    },
    (
        Row("CNN-M, RGB", ("cnn-m-rgb",), "74.22"),
        Row("CNN-M, flow", ("cnn-m-flow",), "82.34"),
        Row("CNN-M, average of scores", ("cnn-m-rgb", "cnn-m-flow"), "85.94"),
        Row("how: max at relu5", ("max",), "82.70"),
        Row("how: concat at relu5", ("concat",), "83.53"),
        Row("how: bilinear at relu5", ("bilinear",), "85.05"),
        Row("how: sum at relu5", ("sum",), "85.20"),
        Row("how: conv at relu5", ("conv",), "85.96"),
        Row("where: conv at relu2", ("conv-relu2",), "82.25"),
        Row("where: conv at relu3", ("conv-relu3",), "83.43"),
        Row("where: conv at relu4", ("conv-relu4",), "82.55"),
        Row("where: conv at relu5 and fc8", ("conv-relu5-fc8",), "86.04"),
        Row("where: conv at relu3, relu5 and fc6", ("conv-relu3-relu5-fc6",), "81.55"),
        Row("VGG-16, RGB", ("vgg16-rgb",), "82.61"),
        Row("VGG-16, flow", ("vgg16-flow",), "86.25"),
        Row("VGG-16, average of scores", ("vgg16-rgb", "vgg16-flow"), "90.62"),
        Row("over time: 2D conv, 2D pooling", ("conv-2d-pool",), "89.35 *"),
        Row("over time: 2D conv, 3D pooling", ("conv-3d-pool",), "89.64 *"),
        Row("over time: 3D conv, 3D pooling, two towers", ("conv3d-3d-pool",), "92.5 **"),
        Row("over time: 3D conv, 3D pooling, one tower", ("conv3d-one-tower",), "91.8 **"),
    ),
    "--clips 10 --crops 10",
    {
        "cnn-m-2048": Training("--model cnn-m-2048 --stream rgb", small=SMALL, on=("looks",)),
        "vgg16": Training("--model cnn-m-2048 --stream rgb", small=SMALL, on=("looks",)),
    },
    (
        "*  The paper's network is VGG-16 over frames and CNN-M-2048 over flow. Here both are "
        "VGG-16. With 3D convolution the paper's has 90.40.",
        "** The paper's mean over all three splits.",
        "The paper trains an SVM over the bilinear features. Here it is a linear layer.",
        "The paper does not state how long the two streams are trained. Here it is recipe "
        "two-stream, at a tenth of its rate.",
    ),
)

if __name__ == "__main__":
    main(PAPER)
