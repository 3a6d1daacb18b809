"""The image codecs of CompressAI whose latents are coded in parallel, from its zoo or its examples."""
