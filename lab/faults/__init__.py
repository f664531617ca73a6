"""`make faults`: kill processes, make servers misbehave, and count the emails that are lost.

promises      what each strategy promises under each fault
injections    all faults by name; process_faults, mail_faults and redis_faults inject them, preparations sets up what
              some of them need
cell          one fault injected into one strategy; running is that strategy with its mail server
judge         whether the account of a cell keeps the promise
lanes         the command: strategies side by side; faults_report is its table
"""
