"""What makes each network: functions that import its file when it is made, and not before."""

from __future__ import annotations

from collections.abc import Callable

from flowprep.learn.network_entry import Builder

__all__ = [
    "alexnet",
    "bn_inception",
    "c3d",
    "c3d_bn",
    "cnn_lstm",
    "cnn_m",
    "deepvideo",
    "fast",
    "frame_pooling",
    "googlenet",
    "gru_rcn",
    "gsm",
    "i3d",
    "i3d_fused",
    "i3d_lstm",
    "i3d_resnet50",
    "inception_v1",
    "inception_v3",
    "lrcn",
    "mc3_18",
    "mobilenet_v2",
    "r2d_18",
    "r2plus1d_18",
    "r2plus1d_34",
    "r3d_18",
    "recurrent_cnn",
    "representation_flow",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext3d",
    "rmc3_18",
    "slow",
    "slowfast",
    "timesformer",
    "tsm",
    "tsn",
    "two_stream_fusion",
    "vgg16",
]


def cnn_m() -> Builder:
    from flowprep.learn.models.cnn_m import CNNM

    return CNNM


def resnet18() -> Builder:
    from flowprep.learn.models.resnet import resnet18

    return resnet18


def resnet34() -> Builder:
    from flowprep.learn.models.resnet import resnet34

    return resnet34


def resnet50() -> Builder:
    from flowprep.learn.models.resnet import resnet50

    return resnet50


def resnet101() -> Builder:
    from flowprep.learn.models.resnet import resnet101

    return resnet101


def resnet152() -> Builder:
    from flowprep.learn.models.resnet import resnet152

    return resnet152


def vgg16() -> Builder:
    from flowprep.learn.models.vgg import VGG16

    return VGG16


def bn_inception() -> Builder:
    from flowprep.learn.models.bn_inception import BNInception

    return BNInception


def mobilenet_v2() -> Builder:
    from flowprep.learn.models.mobilenet_v2 import MobileNetV2

    return MobileNetV2


def tsn(base: Callable[[], Builder]) -> Callable[[], Builder]:
    def build() -> Builder:
        from flowprep.learn.models.tsn import tsn_over

        return tsn_over(base())

    return build


def tsm(base: Callable[[], Builder]) -> Callable[[], Builder]:
    def build() -> Builder:
        from flowprep.learn.models.tsm import tsm_over

        return tsm_over(base())

    return build


def i3d() -> Builder:
    from flowprep.learn.models.i3d import I3D

    return I3D


def i3d_resnet50() -> Builder:
    from flowprep.learn.models.i3d_resnet import I3DResNet

    return I3DResNet


def r2plus1d_18() -> Builder:
    from flowprep.learn.models.video_resnet import R2Plus1D

    return R2Plus1D


def r2plus1d_34() -> Builder:
    from flowprep.learn.models.video_resnet import R2Plus1D34

    return R2Plus1D34


def r3d_18() -> Builder:
    from flowprep.learn.models.video_resnet import R3D

    return R3D


def mc3_18() -> Builder:
    from flowprep.learn.models.video_resnet import MC3

    return MC3


def rmc3_18() -> Builder:
    from flowprep.learn.models.video_resnet import RMC3

    return RMC3


def r2d_18() -> Builder:
    from flowprep.learn.models.video_resnet import R2D

    return R2D


def resnext3d() -> Builder:
    from flowprep.learn.models.resnext3d import ResNeXt3D

    return ResNeXt3D


def slow() -> Builder:
    from flowprep.learn.models.slow import Slow

    return Slow


def gsm(base: Callable[[], Builder]) -> Callable[[], Builder]:
    def build() -> Builder:
        from flowprep.learn.models.gsm import gsm_over

        return gsm_over(base())  # type: ignore[arg-type]

    return build


def inception_v3() -> Builder:
    from flowprep.learn.models.inception_v3 import InceptionV3

    return InceptionV3


def fast() -> Builder:
    from flowprep.learn.models.slowfast import Fast

    return Fast


def slowfast(lateral_frames: int) -> Callable[[], Builder]:
    def build() -> Builder:
        from flowprep.learn.models.slowfast import slowfast_with

        return slowfast_with(lateral_frames)

    return build


def inception_v1() -> Builder:
    from flowprep.learn.models.inception_v1 import InceptionV1

    return InceptionV1


def i3d_lstm() -> Builder:
    from flowprep.learn.models.inception_v1 import InceptionLSTM

    return InceptionLSTM


def i3d_fused() -> Builder:
    from flowprep.learn.models.i3d_fused import FusedInception

    return FusedInception


def recurrent_cnn() -> Builder:
    from flowprep.learn.models.recurrent_cnn import RecurrentCNN

    return RecurrentCNN


def gru_rcn() -> Builder:
    from flowprep.learn.models.gru_rcn import GRURCN

    return GRURCN


def two_stream_fusion() -> Builder:
    from flowprep.learn.models.two_stream_fusion import TwoStreamFusion

    return TwoStreamFusion


def alexnet() -> Builder:
    from flowprep.learn.models.alexnet import AlexNet

    return AlexNet


def googlenet() -> Builder:
    from flowprep.learn.models.googlenet import GoogLeNet

    return GoogLeNet


def frame_pooling() -> Builder:
    from flowprep.learn.models.frame_pooling import FramePooling

    return FramePooling


def cnn_lstm() -> Builder:
    from flowprep.learn.models.cnn_lstm import CNNLSTM

    return CNNLSTM


def lrcn() -> Builder:
    from flowprep.learn.models.lrcn import LRCN

    return LRCN


def c3d() -> Builder:
    from flowprep.learn.models.c3d import C3D

    return C3D


def c3d_bn() -> Builder:
    from flowprep.learn.models.c3d import C3DBatchNorm

    return C3DBatchNorm


def deepvideo() -> Builder:
    from flowprep.learn.models.deepvideo import DeepVideo

    return DeepVideo


def representation_flow() -> Builder:
    from flowprep.learn.models.representation_flow import RepresentationFlowResNet

    return RepresentationFlowResNet


def timesformer() -> Builder:
    from flowprep.learn.models.timesformer import TimeSformer

    return TimeSformer
