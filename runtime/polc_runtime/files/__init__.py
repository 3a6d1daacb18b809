"""Files in and out: which inputs there are, and outputs that appear whole or not at all."""
