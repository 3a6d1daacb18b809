"""`polc-bench`: measures what a bundle does with pictures: rate, distortion and accuracy."""
