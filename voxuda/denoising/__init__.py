"""The paper's section III: noise generation module, bilateral and improved bilateral filter."""
