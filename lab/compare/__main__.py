"""`python -m lab.compare`, which `make compare` runs."""

from lab.compare.rounds import main

if __name__ == "__main__":
    main()
