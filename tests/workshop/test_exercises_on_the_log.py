"""The exercises of chapter 6."""

from tests.support.exercises import ExerciseTests

EXERCISES = ("13_idempotent", "14_replay", "15_stories")


class TestExercises(ExerciseTests):
    pass
