"""`python -m polc_runtime` is `polc`."""

import sys

from .cli import main

sys.exit(main())
