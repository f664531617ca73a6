"""The exercises on the queue of chapter 5."""

from tests.support.exercises import ExerciseTests

EXERCISES = ("06_explore", "07_move", "08_lease", "09_backoff")


class TestExercises(ExerciseTests):
    pass
