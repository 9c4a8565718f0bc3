"""``python -m landcover_plugin`` is ``landcover``."""

import sys

from .cli import main

sys.exit(main())
