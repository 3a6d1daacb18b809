"""The command lines that tests run as processes of their own."""

import sys

EXPORT_COMMAND = [sys.executable, "-c", "import sys; from polc_export.cli import main; sys.exit(main())"]
