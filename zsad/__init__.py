"""The science: tensors in, tensors out; never Ray, never file formats."""
