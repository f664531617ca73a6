"""The lab: experiments over all six strategies, each from the outside, as a reader would start them.

compare      the six strategies side by side
faults       kill things, and count what is lost
bench        how fast the parts are, each beside a reference of the same run
tables       writes what these three measured into the READMEs
screenshots  pictures of the pages, for the README
load         load generators
harness      what all of these share

What measures, what is measured and what receives the mail are processes of their own: none waits for another's event
loop.
"""
