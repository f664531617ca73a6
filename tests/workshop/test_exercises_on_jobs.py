"""The exercises on the jobs of chapter 5."""

from tests.support.exercises import ExerciseTests

EXERCISES = ("10_poison", "11_links", "12_picture")


class TestExercises(ExerciseTests):
    pass
