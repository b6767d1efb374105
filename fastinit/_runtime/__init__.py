"""What stands between Python's arguments and compiled code: arrays, worker threads and the machine.

`arrays` checks arrays and says how a region of a tensor lies in memory; `threads` cuts work into ranges for the
drivers and runs them on the threads of `pool`; `workers` are threads that take items from a list. Modules here
import `fastinit._native` only. Start reading at `threads.spread`.
"""
