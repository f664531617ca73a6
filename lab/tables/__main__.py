"""`python -m lab.tables`, which `make tables` runs."""

from lab.tables.render import main

if __name__ == "__main__":
    main()
