"""SystemClock: the machine's time. The only module that asks for it; app hands it to everybody else as a port."""

import time


class SystemClock:
    """Implements the Clock port."""

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return time.time_ns() // 1_000_000

    monotonic = staticmethod(time.monotonic)
