"""``python -m conveyor_sidecar`` is ``conveyor-sidecar``."""

from conveyor_sidecar.main import main

main()
