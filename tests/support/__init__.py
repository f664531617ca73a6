"""What tests share: programs, peers, proxies. This folder has no tests."""
