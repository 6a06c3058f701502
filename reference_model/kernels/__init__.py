"""Triton kernels, each beside the eager code it replaces; nothing here is imported until a recipe asks.

``TRITON_INTERPRET=1``, set before the first import, runs them on a CPU, which is how the tests check them.
"""
