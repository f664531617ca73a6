"""The exercises of chapters 1 and 2."""

from tests.support.exercises import ExerciseTests

EXERCISES = ("01_measure", "02_bound", "03_drain")


class TestExercises(ExerciseTests):
    pass
