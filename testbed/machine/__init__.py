"""What every room asks of the machine it runs on, whatever a lab is: the ground floor beside `topology`.

How to enter a namespace and run a program there (`space`), who a process is and how it ends (`processes`), signals
(`interrupts`), whether a program is installed (`tools`), files written whole (`files`), where this project lies
(`checkout`), how text looks on a terminal (`screen`), what is told of an error that nobody foresaw (`unexpected`). It
knows no lab, node or pod, and keeps nothing between two calls.
"""
