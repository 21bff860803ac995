"""Nothing is shared implicitly: fakes and fixtures of tests/support are imported by name."""

import signal

# A shell starts what it runs in the background with SIGINT ignored, and children inherit that: the
# servers and commands that tests interrupt would never notice.
signal.signal(signal.SIGINT, signal.default_int_handler)
