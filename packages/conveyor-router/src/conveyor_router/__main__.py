"""`python -m conveyor_router` is `conveyor-router`."""

from conveyor_router.main import main

main()
