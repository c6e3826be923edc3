"""The words every other part speaks in: address, envelope, content, headers, re-encoding, outcome. Imports nothing of ours."""
