"""``python -m vmconnect``: the same as the ``vmconnect`` command."""

import sys

from vmconnect.cli import main

sys.exit(main())
