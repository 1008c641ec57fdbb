"""VoxResNet, discriminators, the EMA teacher."""
