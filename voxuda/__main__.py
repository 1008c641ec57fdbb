"""``python -m voxuda``."""

from voxuda.cli import main

raise SystemExit(main())
