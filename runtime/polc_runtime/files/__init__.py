"""Files in and out: listing inputs, reading them within limits, and writing outputs whole or not at all."""
