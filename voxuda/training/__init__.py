"""One run: configuration, folder, loop, evaluation, whole tomograms."""
