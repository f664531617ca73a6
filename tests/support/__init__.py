"""What tests share: programs, servers that misbehave, proxies. This folder has no tests."""
