"""What a session, a turn and its log, a price and a right are. Pure: no I/O, no clock, no library but the contract."""
