"""``python -m fdta``."""

from fdta.cli import main

raise SystemExit(main())
