"""The Griffon-G model: a CLIP tower, a projector, a language model, and a second tower for what a user points at."""
