"""`make tables`: write the results in results/*.json into the READMEs.

saved     reads these files
overview  the tables of all six strategies
chapters  the tables of one chapter
engines   the tables of the engines of a chapter
replicas  the tables of Redis with replicas
render    replaces the blocks of a README
"""
