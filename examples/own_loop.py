"""A training loop of one's own: python own_loop.py flow/ [EPOCHS [CROP_PX]]"""

import sys

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from flowprep.learn import ClipSpec, ModelSpec, TrainConfig, VideoClips, collate, create_model


def main(out: str, num_epochs: int = 10, crop_px: int = 224) -> float:
    config = TrainConfig(ModelSpec("resnet18"), ClipSpec("flow", num_frames=10, crop_px=crop_px))
    train = VideoClips(out, config)
    test = VideoClips(out, config, split="test", random=False)
    num_classes = len(train.dataset.class_names)
    model = create_model(
        "resnet18", stream="flow", num_classes=num_classes, num_frames=10, width=0.25
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options = {"batch_size": 8, "collate_fn": collate, "num_workers": 2}
    loader = DataLoader(train, shuffle=True, persistent_workers=True, **options)
    accuracy = 0.0
    for epoch in range(num_epochs):
        train.set_epoch(epoch)
        model.train()
        for inputs, labels in loader:
            optimizer.zero_grad()
            cross_entropy(model(*inputs), labels).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = [(model(*x).argmax(1) == y).float() for x, y in DataLoader(test, **options)]
        accuracy = torch.cat(right).mean().item()
        print(f"epoch {epoch}: {100 * accuracy:.0f} % of the test videos are right")
    return accuracy


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
