"""Training with Lightning: python own_loop_lightning.py flow/ [EPOCHS [CROP_PX]]"""

import sys

import lightning
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from flowprep.learn import ClipSpec, ModelSpec, TrainConfig, VideoClips, collate, create_model


class Classifier(lightning.LightningModule):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.model = create_model(
            "resnet18", stream="flow", num_classes=num_classes, num_frames=10, width=0.25
        )

    def training_step(self, batch, _):
        inputs, labels = batch
        return cross_entropy(self.model(*inputs), labels)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main(out: str, num_epochs: int = 10, crop_px: int = 224, **options) -> lightning.Trainer:
    config = TrainConfig(ModelSpec("resnet18"), ClipSpec("flow", num_frames=10, crop_px=crop_px))
    clips = VideoClips(out, config)
    loader = DataLoader(clips, batch_size=8, shuffle=True, collate_fn=collate, num_workers=2)
    trainer = lightning.Trainer(max_epochs=num_epochs, log_every_n_steps=1, **options)
    trainer.fit(Classifier(len(clips.dataset.class_names)), loader)
    return trainer


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
