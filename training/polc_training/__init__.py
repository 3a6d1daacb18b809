"""Training of every stage: images to checkpoints."""
