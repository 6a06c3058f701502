"""The reference training, quantization and packing stack."""
