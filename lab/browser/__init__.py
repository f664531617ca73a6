"""The browser lab: `make lab` starts the six strategies and a page on which you send emails and break processes.

lab_page       the web server: the page, the event stream, `POST /do`
page_requests  what the page may ask for
laboratory     the lanes, the mail server and Redis, and what a reader can do to them
lane           a strategy that runs, its callers and its account
callers        request emails and report every answer
observation    what is seen of a strategy from outside: processes, counters, emails that it has given up
bookkeeping    the account (lab/harness/account.py, as in `make faults`) and the state of each email
experiments    a load, a fault, and the wait until every account closes
explanations   why an experiment ends as it does
feed           the frames of the event stream
sequences      random faults by a seed, and the check that every account closes
cost           the CPU time of the page, the browser, the lab and the strategies
page           HTML, CSS and the modules of the page

A frame of the event stream, ten a second:

    number, at       the frame, and seconds since the lab started
    whole            true: forget the emails of earlier frames (the first frame, and after a viewer has missed some)
    dial, redis      the mail server's faults; starts, runs, frozen or dead
    experiment       the one that runs or ran last: run, name, fault, lanes, phase, seconds, results
    lanes            lane, subject, status, epoch (of its account), port, rate, behind (emails that are due and have no
                     caller), numbers, settled, closed_after, gaps, problem, race, answer_ms, inbox_ms, processes
                     (role, pid, frozen), and emails: [number, state] of those that have changed

The state of an email, and the observation that it comes from:

    q asked              a caller has sent the request and has no answer yet
    x n refused          the caller's answer was no 2xx; none came
    a accepted           the caller's answer was a 2xx with this id. The page shows as many of these as waiting, the
                         oldest first, as the strategy's counters say it holds, and the others as not yet known
    i g in flight        the mail server has accepted the recipient (g: not for the first time) and has not answered the
                         message
    d delivered          the mail server's journal has its id
    u duplicate          the journal has the same id again
    f failed             its id is in the strategy's failed list, among its parked events, or in its log
    l lost               accepted, none of the above, and the strategy holds nothing any more
"""
