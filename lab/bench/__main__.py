"""`python -m lab.bench`, which `make bench` runs."""

from lab.bench.suite import main

if __name__ == "__main__":
    main()
