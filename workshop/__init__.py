"""The workshop: a plan for its leader, and exercises that check themselves.

course       the order of the exercises, from order.toml, and the files of each
run          `make exercise`: show the next exercise, watch the learner's copy, check it
progress     what the learner has solved, skipped and predicted, in workshop/my/
bench        what checks share: a launcher for the learner's programs, and a Valkey
launcher     starts the learner's programs quickly, as processes that can be killed
trial        one check: programs, an inbox, faults, and the account of the emails
program      a program of the learner, as a process that is killed or stopped
inbox        the mail server of a check
slides       `make slides`: the leader's plan as a deck
"""
