"""The command lines that tests run as processes of their own."""

import sys

PEAK_KILOBYTES = 'int(re.search(r"VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())[1])'
"""Code for the most memory that a process has had; getrusage would count its parent's. Needs re and Path."""

EXPORT_COMMAND = [sys.executable, "-c", "import sys; from polc_export.cli import main; sys.exit(main())"]
