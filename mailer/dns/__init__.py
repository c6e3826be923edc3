"""Ask DNS: questions, answers that are remembered, and what kind of place an address is."""
