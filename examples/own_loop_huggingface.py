"""Training with Hugging Face: python own_loop_huggingface.py flow/ RUN [EPOCHS [CROP_PX]]"""

import sys

from torch import nn
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments

from flowprep.learn import ClipSpec, ModelSpec, TrainConfig, VideoClips, collate, create_model


class Classifier(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.model = create_model(
            "resnet18", stream="flow", num_classes=num_classes, num_frames=10, width=0.25
        )

    def forward(self, inputs, labels):
        logits = self.model(*inputs)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


def named(samples):
    return dict(zip(("inputs", "labels"), collate(samples), strict=True))


def main(out: str, run: str, num_epochs: int = 10, crop_px: int = 224, **options) -> Trainer:
    config = TrainConfig(ModelSpec("resnet18"), ClipSpec("flow", num_frames=10, crop_px=crop_px))
    clips = VideoClips(out, config)
    options |= {"dataloader_num_workers": 2, "remove_unused_columns": False}
    arguments = TrainingArguments(run, num_train_epochs=num_epochs, **options)
    model = Classifier(len(clips.dataset.class_names))
    trainer = Trainer(model, arguments, train_dataset=clips, data_collator=named)
    trainer.train()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
