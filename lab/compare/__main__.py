"""`python -m lab.compare`, which `make compare` runs."""

from lab.compare.compare_command import main

if __name__ == "__main__":
    main()
