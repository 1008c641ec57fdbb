"""``python -m voxuda``."""

from voxuda.commands.main import main

raise SystemExit(main())
