"""Mutation testing of the session layer and the middleware: `make test-mutants`.

It draws mutants at random: single changes of a statement, a condition or a constant inside a function. Against each mutant
it runs those tests of these packages that run the changed statement, the shortest first, until one fails. A mutant that
survives shows a line whose loss no test would notice.
"""
