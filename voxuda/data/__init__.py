"""Files in, samples out: MRC, star files, folders, tilt stacks, domains."""
