"""The exercises of chapters 3 and 4."""

from tests.support.exercises import ExerciseTests

EXERCISES = ("04_acknowledge", "05_subscribe")


class TestExercises(ExerciseTests):
    pass
