"""The lab: experiments over all six strategies, started and observed from outside, as a reader would start them.

compare      the six strategies side by side
faults       kill processes and count the emails that are lost
bench        how fast the parts are, each beside a reference measured in the same run
browser      the browser lab: the six side by side on a page, to be broken by hand
tables       writes the results of these three into the READMEs
screenshots  pictures of the pages, for the README
chromium     drives an installed Chromium
load         load generators
harness      what all of these share

The load generator, the strategy and the mail server are separate processes, so none of them waits for the event loop
of another.
"""
