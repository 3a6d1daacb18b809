"""Training data: images, labelled images and label maps, and loading them reproducibly."""
