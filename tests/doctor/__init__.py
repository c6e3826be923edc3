"""What doctor finds, with real nameservers, servers, files and processes."""
