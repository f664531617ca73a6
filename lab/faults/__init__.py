"""`make faults`: kill processes, make servers misbehave, and count what is lost.

promises      what each strategy promises under each fault
injections          the faults, done for real; preparations is what some of them need first
cell          one fault done to one strategy; running is that strategy with its mail server
judge         whether the account of a cell keeps the promise
lanes         the command: strategies side by side; faults_report is its table
"""
