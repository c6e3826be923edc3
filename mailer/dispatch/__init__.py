"""Move it: the schedule, the fair queue, the rules of a round, the workers, and messages parked in files."""
