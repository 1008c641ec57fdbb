"""Arrays in, arrays out: spectra, filters, normalising, tilt geometry."""
