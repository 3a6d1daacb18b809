"""Images and class maps: reading, preparing and drawing them."""
