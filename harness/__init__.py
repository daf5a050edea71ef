"""The words of the domain and the run: scenario, lab, history, checks, verdict, report.

A run flows one way: scenario -> plan -> lab -> load, probes and faults -> history -> checks -> verdict -> report.
All right of "history" is pure and runs again from disk with no lab.
"""
