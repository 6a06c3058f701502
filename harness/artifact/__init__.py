"""The artifact: grids, compressors and the hardened container of a compressed model.

Imports nothing itself: the commands `pack` and `inspect` must be listed where numpy is not installed.
"""
