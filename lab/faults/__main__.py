"""`python -m lab.faults`, which `make faults` runs."""

from lab.faults.lanes import main

if __name__ == "__main__":
    main()
