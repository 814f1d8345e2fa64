"""The tests of `aimv2_np.testing`, by what they judge."""
