"""Floor 5: the policy over pages: codec, backbones, decoding, and the run folder that holds it."""
