"""Rate against distortion and accuracy, measured on real files."""
