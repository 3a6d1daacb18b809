"""What the tests of vision stages share: pictures, plain losses, hashes of weights, one step of training."""

import hashlib

import torch

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def picture(batch, height, width):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def mask_for(image, classes=11):
    mask = torch.randint(
        0, classes, (len(image), *image.shape[2:]), generator=torch.Generator().manual_seed(1)
    )
    mask[:, :9, 20:] = 255
    return mask.to(torch.uint8)


def repeated(image, height, width):
    """The image with its last row and column repeated, by index."""
    rows = torch.arange(height).clamp(max=image.shape[2] - 1)
    columns = torch.arange(width).clamp(max=image.shape[3] - 1)
    return image[:, :, rows][..., columns]


def digest(module):
    """A hash over every parameter and buffer."""
    state = module.state_dict()
    return hashlib.sha256(b"".join(state[key].numpy().tobytes() for key in sorted(state))).hexdigest()


def one_step(stage, batch):
    (objective,) = stage.objectives.values()
    optimizer = objective.make_optimizer()
    losses = stage(next(iter(stage.objectives)), batch)
    losses["loss"].backward()
    optimizer.step()
    return losses


def smoothed(logits, label, smoothing=0.1):
    """Cross-entropy against 1 - smoothing at the label plus smoothing spread over all classes."""
    target = torch.full_like(logits, smoothing / logits.shape[1])
    target[torch.arange(len(label)), label] += 1 - smoothing
    return -(target * logits.log_softmax(1)).sum(1).mean()


def pixelwise(logits, mask):
    """Mean of -log p over the pixels that have a label."""
    known = mask != 255
    log_p = logits.log_softmax(1).permute(0, 2, 3, 1)[known]
    return -log_p.gather(1, mask[known].long()[:, None]).mean()
